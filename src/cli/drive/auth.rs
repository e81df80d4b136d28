//! `auth`: access to Google Drive, granted, shown and taken back.
//!
//! What is said about the file that keeps it is read from that file, not from what would be written now.

use std::io::IsTerminal;
use std::process::{Command, Stdio};

use serde_json::json;
use zeroize::Zeroizing;

use super::{USED, app, keeper, patience};
use crate::cli::args::Auth;
use crate::cli::context::Context;
use crate::cli::output::{self, iso, line, shown, time};
use crate::drive::access::{Access, App};
use crate::drive::bases::Bases;
use crate::drive::grant::{Grant, Keeper};
use crate::drive::http::Http;
use crate::drive::limit::Limit;
use crate::drive::login::Login;
use crate::drive::sessions::FILE as UPLOADS;
use crate::error::Result;

/// `auth`.
pub fn auth(context: &Context, action: &Auth) -> Result<u8> {
    match action {
        Auth::Google { device } => grant(context, *device),
        Auth::Status { offline } => status(context, *offline),
        Auth::Revoke => revoke(context),
    }
}

fn grant(context: &Context, device: bool) -> Result<u8> {
    let (app, keeper) = (app(context)?, keeper(context)?);
    let data = context.data_dir()?;
    if !data.is_dir() {
        // A new machine has none yet, and what is granted has to lie somewhere.
        crate::store::local::create_folder(&data)?;
        context.say(format!("made the data directory {}", data.display()));
    }
    let bases = Bases::from_env()?;
    let http = Http::new(Limit::new(None), &bases)?;
    let login = Login { http: &http, bases: &bases, app: &app, patience: patience(context) };
    let grant = if device {
        login.on_device(&|address, code| {
            output::message(format!("On any device, open {} and type the code {}", shown(address), shown(code)));
        })?
    } else {
        login.in_browser(&|address| {
            output::message("Open this address in a browser on this machine, and allow it:");
            output::message(address);
            open_browser(address);
        })?
    };
    keeper.store(&grant)?;
    if !keeper.seals() {
        output::warning(format!(
            "the access stands in the clear in {}: without a vault key it cannot be sealed",
            keeper.path().display()
        ));
    }
    tell(context, &keeper, Some(&grant), Some(true));
    Ok(0)
}

/// Best effort: the address was printed.
fn open_browser(address: &str) {
    if std::io::stderr().is_terminal() {
        let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
        let quiet = || Stdio::null();
        let _ = Command::new(program).arg(address).stdin(quiet()).stdout(quiet()).stderr(quiet()).spawn();
    }
}

fn status(context: &Context, offline: bool) -> Result<u8> {
    let keeper = keeper(context)?;
    let grant = keeper.load()?;
    if grant.is_some() && !offline {
        let bases = Bases::from_env()?;
        let http = Http::new(Limit::new(None), &bases)?;
        Access::open(app(context)?, self::keeper(context)?)?.prove(&http, &bases, patience(context))?;
    }
    let holds = (grant.is_some() && !offline).then_some(true);
    tell(context, &keeper, grant.as_ref(), holds);
    Ok(u8::from(grant.is_none()))
}

fn tell(context: &Context, keeper: &Keeper, grant: Option<&Grant>, holds: Option<bool>) {
    if context.json {
        output::json(&json!({
            "granted": grant.is_some(),
            "since": grant.map(|grant| iso(grant.granted_ms)),
            "scope": grant.map(|grant| &grant.scope),
            "sealed": keeper.is_sealed(),
            "path": keeper.path().to_string_lossy(),
            "holds": holds,
        }));
        return;
    }
    match grant {
        None => line(
            "there is no access to Google Drive: `nbak auth google` asks for it; `--device` where there is no browser",
        ),
        Some(grant) => line(format!(
            "access to Google Drive since {}, for files of this program only; {}; kept {}sealed in {}",
            time(grant.granted_ms),
            if holds.is_some() { "Google accepts it" } else { "Google was not asked" },
            if keeper.is_sealed() { "" } else { "not " },
            keeper.path().display()
        )),
    }
}

fn revoke(context: &Context) -> Result<u8> {
    let keeper = keeper(context)?;
    // To take it back, the token is enough.
    let app = App { id: String::new(), secret: Zeroizing::default() };
    let bases = Bases::from_env()?;
    let http = Http::new(Limit::new(None), &bases)?;
    let login = Login { http: &http, bases: &bases, app: &app, patience: patience(context) };
    let was_there = login.revoke(&keeper).map_err(|error| {
        let file = keeper.path().display();
        error.hint(format!(
            "to take it back without this machine: remove nbak's access at https://myaccount.google.com/connections; \
             to forget it here: delete {file}"
        ))
    })?;
    // What had begun belongs to an access that is no more.
    for name in [UPLOADS, USED] {
        let _ = std::fs::remove_file(context.data_dir()?.join(name));
    }
    if context.json {
        output::json(&json!({"revoked": was_there}));
    } else {
        line(if was_there { "the access was taken back" } else { "there was no access" });
    }
    Ok(0)
}
