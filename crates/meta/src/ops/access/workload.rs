//! Issuers of tokens that machines sign in with, and the rules on what these must say.
//!
//! Settings and conditions are JSON that `core` writes and reads. Bindings and memberships name a rule as kind [`WORKLOAD`] and
//! go with it, so that whoever gets the name later begins with nothing.

use std::fmt;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::change::Part;
use super::{By, Changed, STEP, begin, binding, end};
use crate::error::Result;
use crate::meant::Meant;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// The kind of subjects that are rules.
pub const WORKLOAD: &str = "workload";

/// Longest text of settings that the audit log quotes, in bytes.
const LONGEST_TOLD: usize = 1_024;
/// Most of one row that it quotes, in bytes.
const LARGEST_TOLD: usize = 16 << 10;

/// Whether a subject of that kind is no rule, or one that is there: else whoever gets its name later would find something.
pub(super) async fn rule_stands<T: Tx>(tx: &mut T, kind: &str, name: &str) -> Result<bool> {
    Ok(kind != WORKLOAD
        || tx
            .row("SELECT 1 FROM workload_rule WHERE name = $1", vals![name])
            .await?
            .is_some())
}

/// The setting that counts changes of issuers and rules, so that other changes of rights read none of them again.
const VERSION: &str = "access.workload";

/// An issuer as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuerRow {
    /// The name.
    pub name: String,
    /// JSON.
    pub settings: String,
    /// What its keys are fetched with, sealed by whoever puts it.
    pub secret: Option<Vec<u8>>,
    /// Counts the changes of the row.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

impl fmt::Debug for IssuerRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerRow")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A rule as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRow {
    /// The name.
    pub name: String,
    /// Whose tokens.
    pub issuer: String,
    /// JSON.
    pub conditions: String,
    /// Counts the changes of the row.
    pub version: i64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

/// How often issuers and rules were changed. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Version;

impl ReadOp for Version {}
impl Op for Version {
    type Out = i64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        let row = tx
            .row("SELECT value FROM setting WHERE key = $1", vals![VERSION])
            .await?;
        let value = row.map(|mut row| row.text(0)).transpose()?;
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}

/// As the end of every change of rights, here of a rule or with `""` of an issuer, and counts one of workloads: the epoch is locked, so nobody else does.
async fn done<T: Tx>(
    tx: &mut T,
    epoch: i64,
    by: &By,
    rule: &str,
    payload: Value,
) -> Result<Changed> {
    // What the epoch will be: it grows with each change, and both are restored together.
    tx.exec(
        "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        vals![VERSION, &(epoch + 1).to_string()],
    )
    .await?;
    // Of an issuer there is nothing among the rights themselves: a rule without a name holds nothing.
    let part = Part::Subject {
        kind: WORKLOAD.to_owned(),
        name: rule.to_owned(),
    };
    end(tx, epoch, by, "", &[part], payload).await?;
    Ok(Changed::Done)
}

/// Issuers by name. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Issuers {
    /// The last one of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Issuers {}
impl Op for Issuers {
    type Out = Vec<IssuerRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT name, settings, secret, version, created_at, created_by FROM workload_issuer WHERE name > $1 ORDER BY name \
                 LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(IssuerRow {
                    name: row.text(0)?,
                    settings: row.text(1)?,
                    secret: row.opt_bytes(2)?,
                    version: row.int(3)?,
                    created_at: row.int(4)?,
                    created_by: row.text(5)?,
                })
            })
            .collect()
    }
}

/// Rules by name. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The last one of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Rules {}
impl Op for Rules {
    type Out = Vec<RuleRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT name, issuer, conditions, version, created_at, created_by FROM workload_rule WHERE name > $1 ORDER BY name \
                 LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(RuleRow {
                    name: row.text(0)?,
                    issuer: row.text(1)?,
                    conditions: row.text(2)?,
                    version: row.int(3)?,
                    created_at: row.int(4)?,
                    created_by: row.text(5)?,
                })
            })
            .collect()
    }
}

/// Makes an issuer, or changes it. Locks the epoch. Cost: five rows.
#[derive(Clone)]
pub struct PutIssuer {
    /// The name.
    pub name: String,
    /// JSON.
    pub settings: String,
    /// Sealed; `None`: it has none.
    pub secret: Option<Vec<u8>>,
    /// The version that the change is meant for.
    pub version: Meant,
    /// Who does it.
    pub by: By,
}

impl Op for PutIssuer {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let row = tx
            .row(
                "SELECT settings, secret, version FROM workload_issuer WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let before = match row {
            Some(mut row) => Some((row.text(0)?, row.opt_bytes(1)?, row.int(2)?)),
            None => None,
        };
        let version = before.as_ref().map(|before| before.2);
        if !self.version.fits(version) {
            return Ok(Changed::Differs);
        }
        let version = version.unwrap_or(0);
        if let Some((settings, secret, _)) = &before
            && (settings, secret) == (&self.settings, &self.secret)
        {
            return Ok(Changed::Same);
        }
        tx.exec(
            "INSERT INTO workload_issuer (name, settings, secret, version, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (name) DO UPDATE SET settings = excluded.settings, secret = excluded.secret, version = excluded.version",
            vals![
                &self.name,
                &self.settings,
                self.secret.as_deref(),
                version + 1,
                self.by.at,
                &self.by.actor
            ],
        )
        .await?;
        let before =
            before.map(|(settings, secret, _)| issuer(&self.name, &settings, secret.is_some()));
        let after = issuer(&self.name, &self.settings, self.secret.is_some());
        let payload = json!({"what": "workload issuer", "before": before, "after": after});
        done(tx, epoch, &self.by, "", payload).await
    }
}

/// Removes an issuer. [`Changed::InUse`]: there are rules on its tokens. Locks the epoch. Cost: five rows.
#[derive(Clone, Debug)]
pub struct DeleteIssuer {
    /// The name.
    pub name: String,
    /// The version that is meant.
    pub version: Meant,
    /// Who does it.
    pub by: By,
}

impl Op for DeleteIssuer {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let row = tx
            .row(
                "SELECT settings, secret, version FROM workload_issuer WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Changed::Unknown);
        };
        let before = issuer(&self.name, &row.text(0)?, row.opt_bytes(1)?.is_some());
        let version = row.int(2)?;
        if !self.version.fits(Some(version)) {
            return Ok(Changed::Differs);
        }
        let used = tx
            .row(
                "SELECT 1 FROM workload_rule WHERE issuer = $1 LIMIT 1",
                vals![&self.name],
            )
            .await?;
        if used.is_some() {
            return Ok(Changed::InUse);
        }
        tx.exec(
            "DELETE FROM workload_issuer WHERE name = $1",
            vals![&self.name],
        )
        .await?;
        let payload = json!({"what": "workload issuer", "before": before, "after": null});
        done(tx, epoch, &self.by, "", payload).await
    }
}

/// Puts the same secret sealed otherwise in the place of an issuer's, if it is still this one. Cost: one row.
#[derive(Clone)]
pub struct Reseal {
    /// The issuer.
    pub name: String,
    /// What is there.
    pub from: Vec<u8>,
    /// What shall be; `None`: nobody can open it.
    pub to: Option<Vec<u8>>,
}

impl Op for Reseal {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let changed = tx
            .exec(
                "UPDATE workload_issuer SET secret = $3 WHERE name = $1 AND secret = $2",
                vals![&self.name, &self.from, self.to.as_deref()],
            )
            .await?;
        Ok(changed == 1)
    }
}

/// Makes a rule, or changes it. [`Changed::Unknown`]: there is no such issuer. [`Changed::InUse`]: the rule is another issuer's.
/// Locks the epoch. Cost: six rows.
#[derive(Clone, Debug)]
pub struct PutRule {
    /// The name.
    pub name: String,
    /// Whose tokens; stays as it is for ever.
    pub issuer: String,
    /// JSON.
    pub conditions: String,
    /// The version that the change is meant for.
    pub version: Meant,
    /// Who does it.
    pub by: By,
}

impl Op for PutRule {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let there = tx
            .row(
                "SELECT 1 FROM workload_issuer WHERE name = $1",
                vals![&self.issuer],
            )
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        let row = tx
            .row(
                "SELECT issuer, conditions, version FROM workload_rule WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let before = match row {
            Some(mut row) => Some((row.text(0)?, row.text(1)?, row.int(2)?)),
            None => None,
        };
        let version = before.as_ref().map(|before| before.2);
        if !self.version.fits(version) {
            return Ok(Changed::Differs);
        }
        let version = version.unwrap_or(0);
        if let Some((issuer, conditions, _)) = &before {
            if *issuer != self.issuer {
                return Ok(Changed::InUse);
            }
            if *conditions == self.conditions {
                return Ok(Changed::Same);
            }
        }
        tx.exec(
            "INSERT INTO workload_rule (name, issuer, conditions, version, created_at, created_by) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (name) DO UPDATE SET conditions = excluded.conditions, version = excluded.version",
            vals![
                &self.name,
                &self.issuer,
                &self.conditions,
                version + 1,
                self.by.at,
                &self.by.actor
            ],
        )
        .await?;
        let before = before.map(|(issuer, conditions, _)| rule(&self.name, &issuer, &conditions));
        let after = rule(&self.name, &self.issuer, &self.conditions);
        let payload = json!({"what": "workload rule", "before": before, "after": after});
        done(tx, epoch, &self.by, &self.name, payload).await
    }
}

/// Removes a rule with its bindings and memberships, the rule itself last. Again while it gives [`Changed::More`]. Locks the epoch.
/// Cost: twice [`STEP`] rows.
#[derive(Clone, Debug)]
pub struct DeleteRule {
    /// The name.
    pub name: String,
    /// The version that is meant.
    pub version: Meant,
    /// Who does it.
    pub by: By,
}

impl Op for DeleteRule {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let row = tx
            .row(
                "SELECT issuer, conditions, version FROM workload_rule WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(Changed::Unknown);
        };
        let (issuer, conditions, version) = (row.text(0)?, row.text(1)?, row.int(2)?);
        if !self.version.fits(Some(version)) {
            return Ok(Changed::Differs);
        }
        let bindings = binding::delete_some(tx, WORKLOAD, &self.name).await?;
        let rows = tx
            .query(
                "SELECT group_name FROM group_member WHERE kind = $1 AND name = $2 ORDER BY group_name LIMIT $3",
                vals![WORKLOAD, &self.name, STEP],
            )
            .await?;
        let mut groups = Vec::with_capacity(rows.len());
        for mut row in rows {
            groups.push(row.text(0)?);
        }
        for group in &groups {
            tx.exec(
                "DELETE FROM group_member WHERE group_name = $1 AND kind = $2 AND name = $3",
                vals![group, WORKLOAD, &self.name],
            )
            .await?;
        }
        let more = bindings.len().max(groups.len()) as i64 >= STEP;
        if !more {
            tx.exec(
                "DELETE FROM workload_rule WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        }
        let mut before = rule(&self.name, &issuer, &conditions);
        before["groups"] = groups.into();
        before["bindings"] = bindings.into();
        let payload = json!({"what": "workload rule", "before": before, "after": null});
        done(tx, epoch, &self.by, &self.name, payload).await?;
        Ok(if more { Changed::More } else { Changed::Done })
    }
}

fn issuer(name: &str, settings: &str, secret: bool) -> Value {
    json!({"name": name, "settings": read(settings), "secret": secret})
}

fn rule(name: &str, issuer: &str, conditions: &str) -> Value {
    json!({"name": name, "issuer": issuer, "conditions": read(conditions)})
}

/// As JSON, for the audit log; keys, certificates and whatever else is long by its digest.
fn read(json: &str) -> Value {
    let mut value = serde_json::from_str(json).unwrap_or_else(|_| json.into());
    shorten(&mut value);
    match json.len() > LARGEST_TOLD && value.to_string().len() > LARGEST_TOLD {
        true => digest(json),
        false => value,
    }
}

fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > LONGEST_TOLD => *value = digest(text),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        Value::Array(values) => values.iter_mut().for_each(shorten),
        _ => {}
    }
}

fn digest(text: &str) -> Value {
    let sum = Sha256::digest(text);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({"bytes": text.len(), "sha256": sum})
}
