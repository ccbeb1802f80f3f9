//! oras: copies an image with all its platforms into a folder.

use crate::clients::plant::Plant;
use crate::clients::{image, needs, running};

#[test]
fn oras_copies_two_registries_and_again_with_the_upper_two_layers_stopped() {
    if !needs::met("oras copy", &["oras"]) {
        return;
    }
    let mut plant = Plant::start();
    let copied = |plant: &Plant, into: &str| {
        for (name, wanted) in [("library/small:1", &plant.small), ("quay.io/team/app:2", &plant.app)] {
            let folder = plant.folder(into).join(wanted.digest.trim_start_matches("sha256:"));
            let mut copy = plant.client().command("oras");
            copy.args(["copy", "--from-plain-http", &format!("{}/{name}", plant.address())]);
            copy.arg("--to-oci-layout").arg(format!("{}:copy", folder.display()));
            running::output(copy);
            image::assert_holds(&folder, &wanted.all);
        }
    };

    copied(&plant, "warm");
    plant.stop_the_upper_two();
    copied(&plant, "alone");
}
