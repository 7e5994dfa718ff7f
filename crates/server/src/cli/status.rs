//! `wharf status`: how the registry is, and who else serves from the same store.

use super::flags::DataFlags;
use super::gc::time;
use super::human::{count, span};
use super::offline::perform;
use super::{Outcome, print};
use crate::admin::{Command, Health, Reply};
use crate::config::load;

pub(super) fn run(flags: &DataFlags) -> Outcome {
    let config = load(&flags.inputs())?.config;
    match perform(&config, Command::Status)? {
        Reply::Status {
            process,
            version,
            health: Some(health),
        } => print(&told(process, &version, &health)),
        other => Err(super::storage::unexpected(&other)),
    }
}

fn told(process: u32, version: &str, health: &Health) -> String {
    // A stopped registry is looked at by this very process.
    let running = if process == std::process::id() {
        "not running here".to_owned()
    } else {
        format!("version {version}, process {process}")
    };
    let mut text = format!(
        "Wharf:      {running}, in {}\nMetadata:   {}\nBlobs:      {}\nCollection: {}\n",
        health.folder,
        health.metadata,
        health.blobs,
        health
            .paused
            .as_ref()
            .map_or("on".to_owned(), |why| format!(
                "paused: {why} (`wharf gc resume`)"
            ))
    );
    if let Some((waiting, running, dead)) = health.jobs {
        let hint = if dead > 0 { " (`wharf job list`)" } else { "" };
        text.push_str(&format!(
            "Jobs:       {waiting} waiting, {running} running, {dead} dead{hint}\n"
        ));
    }
    if health.replicas.is_empty() {
        return text;
    }
    text.push_str(&format!(
        "\n{:<32}{:<10}{:<22}{:<16}OPERATIONS\n",
        "REPLICA", "VERSION", "SINCE", "HEARD OF"
    ));
    for replica in &health.replicas {
        // Whole seconds: nobody needs more.
        let ago = span(replica.silent_for / 1_000 * 1_000);
        let heard = match replica.there {
            true => format!("{ago} ago"),
            false => format!("gone, {ago}"),
        };
        text.push_str(&format!(
            "{:<32}{:<10}{:<22}{heard:<16}{}\n",
            replica.address,
            replica.version,
            time(replica.started_at),
            replica.operations
        ));
        for difference in &replica.differs {
            text.push_str(&format!("  {difference}\n"));
        }
    }
    let there = health
        .replicas
        .iter()
        .filter(|replica| replica.there)
        .count();
    text.push_str(&format!("{}\n", count(there as u64, "replica")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ReplicaView;

    #[test]
    fn what_differs_stands_below_its_replica() {
        let replica = |address: &str, differs: &[&str], silent_for| ReplicaView {
            address: address.to_owned(),
            version: "1.0".to_owned(),
            started_at: 0,
            silent_for,
            there: silent_for < 30_000,
            operations: 7,
            differs: differs.iter().map(|text| (*text).to_owned()).collect(),
        };
        let health = Health {
            folder: "/data".to_owned(),
            metadata: "ok".to_owned(),
            blobs: "ok".to_owned(),
            paused: Some("restored".to_owned()),
            jobs: Some((3, 1, 1)),
            replicas: vec![
                replica("a:5000", &[], 2_000),
                replica("b:5000", &["url is x here"], 120_000),
            ],
        };
        let text = told(1, "1.0", &health);
        for line in [
            "Wharf:      version 1.0, process 1, in /data",
            "Collection: paused: restored (`wharf gc resume`)",
            "Jobs:       3 waiting, 1 running, 1 dead (`wharf job list`)",
            "  url is x here",
            "1 replica",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("gone, "), "{text}");
    }
}
