//! crane, whose library is that of kaniko, cosign and ko: it has no settings of mirrors and names the node itself.

use crate::clients::plant::Plant;
use crate::clients::{image, needs, running};

#[test]
fn crane_pulls_two_registries_and_again_with_the_upper_two_layers_stopped() {
    if !needs::met("crane pull", &["crane"]) {
        return;
    }
    let mut plant = Plant::start();
    let pulled = |plant: &Plant, into: &str| {
        for (name, wanted) in [("library/small:1", &plant.small), ("quay.io/team/app:2", &plant.app)] {
            let reference = format!("{}/{name}", plant.address());
            let mut digest = plant.client().command("crane");
            digest.args(["digest", "--insecure", &reference]);
            assert_eq!(running::output(digest).trim(), wanted.digest);

            let folder = plant.folder(into).join(wanted.digest.trim_start_matches("sha256:"));
            let mut pull = plant.client().command("crane");
            pull.args(["pull", "--insecure", "--format", "oci", &reference])
                .arg(&folder);
            running::output(pull);
            image::assert_holds(&folder, &wanted.all);
        }
    };

    pulled(&plant, "warm");
    plant.stop_the_upper_two();
    pulled(&plant, "alone");
}
