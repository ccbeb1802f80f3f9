//! The last chapter with `--tls`: what the plant refuses.

use bytes::Bytes;

use crate::cli::demo::endpoint::Endpoint;
use crate::cli::demo::image::{Image, REPOSITORY, TAG};
use crate::cli::demo::plant::Plant;
use crate::cli::demo::proof::Proof;
use crate::cli::demo::{Error, push, show};
use crate::units::with_causes;

/// Tells it on stdout.
///
/// # Errors
///
/// The story cannot go on.
pub(super) async fn tell(plant: &Plant<'_>, proof: &mut Proof) -> Result<(), Error> {
    show::accounts(plant);
    let everywhere = [
        plant.l3.endpoint(),
        plant.l4.endpoint(),
        plant.l5.endpoint(),
        plant.cloud.endpoint(),
    ];
    let of_plant = format!("/v2/{REPOSITORY}/manifests/{TAG}");

    let mut refused = 0;
    for at in everywhere {
        refused += usize::from(status(&at.as_nobody(), &of_plant).await? == 401);
    }
    let seen = format!("401 from {refused} of 4");
    proof.claim("who does not log in is given no image", refused == 4, &seen);

    let mut unmet = 0;
    for at in everywhere {
        let stranger = Endpoint::open(at.url.clone());
        let said = status(&stranger, &of_plant).await.map_err(|error| with_causes(&error));
        unmet += usize::from(said.is_err_and(|words| words.contains("certificate")));
    }
    let seen = format!("{unmet} of 4 certificates are not believed");
    proof.claim(
        "who does not trust the plant's authority asks nothing",
        unmet == 4,
        &seen,
    );

    let payroll = Image::payroll()?;
    push::push(plant.cloud.endpoint(), &payroll).await?;
    let of_office = format!("/v2/{}/manifests/{TAG}", payroll.repository);
    let above = status(plant.cloud.endpoint(), &of_office).await?;
    let below = status(plant.l3.endpoint(), &of_office).await?;
    proof.claim(
        "what the cloud does not list for Level 5 is not to be had below, by who may have all of Level 3 either",
        (above, below) == (200, 404),
        &format!("{}: {above} from the cloud, {below} at Level 3", payroll.repository),
    );

    let push = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let client = plant.l5.below().client()?;
    let url = format!("{}{push}", plant.l5.below().url);
    let asked = plant.l5.below().call(&client, "POST", &url, &[], Bytes::new()).await?;
    proof.claim(
        "an account that may pull does not push",
        asked.status == 403,
        &format!("{} to l4-site at Level 5", asked.status),
    );
    Ok(())
}

async fn status(at: &Endpoint, path: &str) -> Result<u16, Error> {
    let client = at.client()?;
    let url = format!("{}{path}", at.url);
    Ok(at.call(&client, "GET", &url, &[], Bytes::new()).await?.status)
}
