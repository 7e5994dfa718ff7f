//! Issuers and rules in rows, read whole when a change of them is seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use wharf_meta::Meta;
use wharf_meta::access::workload::{IssuerRow, Issuers, RuleRow, Rules, Version};

use super::issuer::KeySource;
use super::keys::Ring;
use super::{Issuer, Rule, Trust, print};
use crate::access::{Password, SecretKeys};
use crate::error::{Error, Result};

/// Rows in one page.
const PAGE: u32 = 100;
/// How often rows that change while they are read are read again.
const ATTEMPTS: u32 = 10;

/// What an issuer's secret is sealed for.
pub(crate) fn purpose(issuer: &str) -> String {
    format!("workload-issuer/{issuer}")
}

/// All of them, if they are others than these.
pub(super) async fn changed(
    meta: &Meta,
    had: &Trust,
    sealing: &SecretKeys,
) -> Result<Option<Trust>> {
    for _ in 0..ATTEMPTS {
        let version = meta.read(Version).await?;
        if version == had.version {
            return Ok(None);
        }
        let trust = pages(meta, version, had, sealing).await?;
        if meta.read(Version).await? == version {
            return Ok(Some(trust));
        }
    }
    Err(Error::Internal(
        "issuers and rules change faster than they can be read".into(),
    ))
}

async fn pages(meta: &Meta, version: i64, had: &Trust, sealing: &SecretKeys) -> Result<Trust> {
    let limit = PAGE;
    let mut trust = Trust {
        version,
        ..Trust::default()
    };
    let mut after = String::new();
    loop {
        let page = meta.scan(Issuers { after, limit }).await?;
        let Some(last) = page.last() else { break };
        after = last.name.clone();
        for row in page {
            let name: Arc<str> = row.name.as_str().into();
            match issuer(row, had, sealing) {
                Ok(issuer) => {
                    trust.issuers.insert(name, Arc::new(issuer));
                }
                Err(reason) => {
                    tracing::warn!(
                        issuer = &*name,
                        reason,
                        "an issuer cannot be used; its tokens are refused"
                    );
                }
            }
        }
    }
    trust.rules = rules(meta).await?;
    Ok(trust)
}

async fn rules(meta: &Meta) -> Result<BTreeMap<Arc<str>, Arc<Rule>>> {
    let limit = PAGE;
    let mut rules = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = meta.scan(Rules { after, limit }).await?;
        let Some(last) = page.last() else { break };
        after = last.name.clone();
        for row in page {
            match rule(&row) {
                Some(rule) => {
                    rules.insert(rule.name.clone(), Arc::new(rule));
                }
                None => tracing::warn!(
                    rule = row.name,
                    "a rule says something that this version does not know; it matches nothing"
                ),
            }
        }
    }
    Ok(rules)
}

fn issuer(
    row: IssuerRow,
    had: &Trust,
    sealing: &SecretKeys,
) -> std::result::Result<Issuer, String> {
    let settings: super::IssuerSettings = serde_json::from_str(&row.settings)
        .map_err(|_| "it says something that this version does not know".to_owned())?;
    let bearer = match &row.secret {
        None => None,
        Some(sealed) => {
            let opened = sealing.open(&purpose(&row.name), sealed);
            let opened =
                opened.map_err(|closed| format!("its bearer token cannot be opened: {closed}"))?;
            let text =
                String::from_utf8(opened).map_err(|_| "its bearer token is damaged".to_owned())?;
            Some(Password::new(text))
        }
    };
    let name: Arc<str> = row.name.into();
    // Its keys stay as they are unless what they come from changed.
    let secret = bearer.as_ref().map_or("", Password::reveal);
    let source = format!("{:?}", settings.keys);
    // What a cluster said of tokens holds for these audiences.
    let asked_for = match &settings.keys {
        KeySource::Review(_) => settings.audiences.join("\n"),
        _ => String::new(),
    };
    let keys = print(&[
        &settings.issuer,
        &source,
        &settings.authority,
        secret,
        &asked_for,
    ]);
    let same = had.issuers.get(&name).map(|issuer| &issuer.ring);
    let has_bearer = bearer.is_some();
    let ring = match same.filter(|ring| ring.print == keys) {
        Some(ring) => ring.clone(),
        None => Arc::new(Ring::new(settings.clone(), bearer, keys)),
    };
    Ok(Issuer {
        print: print(&[
            &row.settings,
            &row.version.to_string(),
            &row.created_at.to_string(),
        ]),
        name,
        settings,
        has_bearer,
        version: row.version,
        created_at: row.created_at,
        created_by: row.created_by,
        ring,
    })
}

fn rule(row: &RuleRow) -> Option<Rule> {
    Some(Rule {
        settings: serde_json::from_str(&row.conditions).ok()?,
        print: print(&[
            &row.issuer,
            &row.conditions,
            &row.version.to_string(),
            &row.created_at.to_string(),
        ]),
        name: row.name.as_str().into(),
        issuer: row.issuer.as_str().into(),
        version: row.version,
        created_at: row.created_at,
        created_by: row.created_by.clone(),
    })
}
