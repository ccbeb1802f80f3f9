//! Skopeo: a multi-platform image with all that it has, by the settings for Podman.

use crate::clients::plant::Plant;
use crate::clients::{image, needs, running};

#[test]
fn skopeo_copies_all_platforms_and_again_with_the_upper_two_layers_stopped() {
    if !needs::met("skopeo copy --all", &[]) {
        return;
    }
    let mut plant = Plant::start();
    let settings = plant.settings("podman", &[]);
    let copied = |plant: &Plant, into: &str| {
        for (name, wanted) in [
            ("docker.io/library/small:1", &plant.small),
            ("quay.io/team/app:2", &plant.app),
        ] {
            // No colon: it would end the folder's name.
            let folder = plant.folder(into).join(wanted.digest.trim_start_matches("sha256:"));
            let mut skopeo = settings.command(plant.client(), "skopeo");
            skopeo.args(["copy", "--all", "--preserve-digests", &format!("docker://{name}")]);
            skopeo.arg(format!("oci:{}:copy", folder.display()));
            running::output(skopeo);
            image::assert_holds(&folder, &wanted.all);
        }
    };

    copied(&plant, "warm");
    plant.stop_the_upper_two();
    copied(&plant, "alone");
}
