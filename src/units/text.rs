//! Types that are written as text, in settings and in JSON.

use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};

/// Gives a type with `FromStr` and `Display` the `Deserialize` and `Serialize` that read and write
/// its text, so that the one parser of the type is the only door to it.
macro_rules! written_as_text {
    ($type:ty) => {
        impl<'de> ::serde::Deserialize<'de> for $type {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any($crate::units::AsText::<$type>::default())
            }
        }

        impl ::serde::Serialize for $type {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

pub(crate) use written_as_text;

/// Reads a text. A bare number is tried too: what it lacks, the type's own error says better than anybody.
pub(crate) struct AsText<T>(PhantomData<T>);

impl<T> Default for AsText<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: FromStr<Err: std::fmt::Display>> Visitor<'_> for AsText<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}
