//! `hodei provider list|get`.

use anyhow::{Context as _, Result};
use hodei_jobs::{v1, view};

use super::connect;
use crate::args::machines::{ProviderCommand, ProviderGetArgs, ProviderListArgs};
use crate::connection::call;
use crate::environment::Environment;
use crate::output::{Format, note, print};

/// Runs one of the `provider` commands.
///
/// # Errors
/// What the server refused, or that it can not be reached.
pub(crate) async fn run(command: ProviderCommand, environment: &Environment) -> Result<u8> {
    match command {
        ProviderCommand::List(args) => list(args, environment).await,
        ProviderCommand::Get(args) => get(args, environment).await,
    }
}

async fn list(args: ProviderListArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::ListProvidersRequest {};
    let answer = call(
        "list providers",
        &client.scheduler,
        &request,
        |mut service, request| async move { service.list_providers(request).await },
    )
    .await?;
    let providers = view::Providers::from(answer);
    print(args.output.format, &providers)?;
    if providers.providers.is_empty() && matches!(args.output.format, Format::Table | Format::Wide) {
        note("no providers; add a [[provider]] to the server's hodei.toml");
    }
    Ok(0)
}

async fn get(args: ProviderGetArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::GetProviderRequest {
        provider: args.provider.to_string(),
    };
    let answer = call(
        &format!("get provider {}", args.provider),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.get_provider(request).await },
    )
    .await?;
    let provider = answer
        .provider
        .context("the server answered nothing about this provider")?;
    print(args.output.format, &view::Provider::from(provider))?;
    Ok(0)
}
