//! `hodei provider …`.

use anyhow::{Context as _, Result};
use hodei_jobs::{v1, view};

use super::connect;
use crate::args::machines::{ProviderCommand, ProviderDrainArgs, ProviderGetArgs, ProviderListArgs};
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
        ProviderCommand::Health(args) => health(args, environment).await,
        ProviderCommand::Drain(args) => drain(args, environment).await,
        ProviderCommand::Resume(args) => resume(args, environment).await,
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
    show(args.output.format, answer.provider)?;
    Ok(0)
}

/// Prints a provider; whether it is healthy.
fn show(format: Format, provider: Option<v1::Provider>) -> Result<bool> {
    let provider = provider.context("the server answered nothing about this provider")?;
    let healthy = provider.healthy;
    print(format, &view::Provider::from(provider))?;
    Ok(healthy)
}

async fn health(args: ProviderGetArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::CheckProviderRequest {
        provider: args.provider.to_string(),
    };
    let answer = call(
        &format!("ask provider {}", args.provider),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.check_provider(request).await },
    )
    .await?;
    let healthy = show(args.output.format, answer.provider)?;
    Ok(u8::from(!healthy))
}

async fn drain(args: ProviderDrainArgs, environment: &Environment) -> Result<u8> {
    let ProviderDrainArgs { provider: args, why } = args;
    let client = connect(&args.connect, environment).await?;
    let request = v1::DrainProviderRequest {
        provider: args.provider.to_string(),
        reason: why.reason,
    };
    let answer = call(
        &format!("drain provider {}", args.provider),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.drain_provider(request).await },
    )
    .await?;
    show(args.output.format, answer.provider)?;
    Ok(0)
}

async fn resume(args: ProviderGetArgs, environment: &Environment) -> Result<u8> {
    let client = connect(&args.connect, environment).await?;
    let request = v1::ResumeProviderRequest {
        provider: args.provider.to_string(),
    };
    let answer = call(
        &format!("resume provider {}", args.provider),
        &client.scheduler,
        &request,
        |mut service, request| async move { service.resume_provider(request).await },
    )
    .await?;
    show(args.output.format, answer.provider)?;
    Ok(0)
}
