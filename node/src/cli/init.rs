//! `comity init`: a node's keys and its configuration.

use clap::Args;
use comity_protocol::geo::{Country, CountrySet};
use comity_protocol::ids::OrgName;
use serde::Serialize;

use super::context::Context;
use super::exit::{CliError, Exit};
use super::org::{CreatedOrg, create_org};
use crate::config::site::default_node_name;
use crate::config::template::Template;
use crate::files::{MODE_PRIVATE, create_atomic};
use crate::identity::{create_key, node_id};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  comity init                                                        then: comity join LINE
  comity init --org acme.example --create-org --location DE          the first node of a new org
  comity init --name lab-2 --location DE --location FR")]
pub(super) struct InitArgs {
    /// The name that people see [default: the machine's]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The org that the node belongs to, such as acme.example
    #[arg(long, value_name = "ORG")]
    org: Option<OrgName>,
    /// Make that org here: this machine will hold its key and admit its nodes
    #[arg(long, requires = "org")]
    create_org: bool,
    /// A country in which data may be processed here (ISO 3166-1, such as DE); repeatable
    #[arg(long = "location", value_name = "CC")]
    locations: Vec<Country>,
    /// The country whose law binds the operator [default: the location, when there is one only]
    #[arg(long, value_name = "CC")]
    operator_country: Option<Country>,
}

#[derive(Debug, Serialize)]
struct Initialised {
    data_dir: String,
    config: String,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<CreatedOrg>,
    next: Vec<String>,
}

pub(super) fn run(args: &InitArgs, context: &Context) -> Result<Exit, CliError> {
    refuse_to_overwrite(args, context)?;
    context.dir.create()?;
    let text = template(args).render();
    create_atomic(&context.config_path, text.as_bytes(), MODE_PRIVATE).map_err(|error| {
        CliError::of(Exit::Usage, &error).next("remove the file yourself, or give another --data-dir")
    })?;
    let key = create_key(&context.dir.node_key())?;
    let org = match (&args.org, args.create_org) {
        (Some(org), true) => Some(create_org(org, true, context)?),
        _ => None,
    };
    let done = Initialised {
        data_dir: context.dir.path().display().to_string(),
        config: context.config_path.display().to_string(),
        node: node_id(&key).to_string(),
        next: next(org.is_some()),
        org,
    };
    context.out.result(&done, describe);
    Ok(Exit::Done)
}

/// Looks at everything before anything is written, so that a refusal leaves nothing half made.
fn refuse_to_overwrite(args: &InitArgs, context: &Context) -> Result<(), CliError> {
    let mut files = vec![context.config_path.clone(), context.dir.node_key()];
    if args.create_org {
        files.push(context.dir.org_key());
    }
    match files.iter().find(|file| file.exists()) {
        Some(file) => Err(CliError::usage(format!("{} exists already; nothing was changed", file.display()))
            .next("edit it, or give another --data-dir")),
        None => Ok(()),
    }
}

fn template(args: &InitArgs) -> Template {
    let operator_country = match (args.operator_country, args.locations.as_slice()) {
        (Some(country), _) => Some(country),
        (None, [only]) => Some(*only),
        (None, _) => None,
    };
    Template {
        name: args.name.clone().unwrap_or_else(default_node_name),
        org: args.org.clone(),
        processing_locations: args.locations.iter().copied().collect::<CountrySet>(),
        operator_country,
    }
}

fn next(has_org: bool) -> Vec<String> {
    let admission = match has_org {
        true => "comity invite --location CC            lets a second node in; --federate another org",
        false => "comity join LINE                       with the line that an org's `comity invite` prints",
    };
    [
        "comity servers add NAME -- COMMAND     gives the node tools to serve",
        admission,
        "comity up                              runs the node",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn describe(done: &Initialised) -> String {
    let org =
        done.org.as_ref().map(|org| format!("org      {}  root {}\n", org.org, org.root)).unwrap_or_default();
    let next: Vec<String> = done.next.iter().map(|step| format!("  {step}")).collect();
    format!("node     {}\nconfig   {}\n{org}\nNext:\n{}", done.node, done.config, next.join("\n"))
}
