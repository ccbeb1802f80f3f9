//! wharf: a container registry for networks that come in layers.
