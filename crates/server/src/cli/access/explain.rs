//! The answer to `wharf access explain`, for people.

use serde_json::Value;
use wharf_core::access::split_robot_name;

use super::text;

fn words(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.map(text).collect()
}

pub(super) fn explained(told: &Value) -> String {
    let repository = told["repository"].as_str();
    let place = repository.unwrap_or("the registry as a whole");
    let (who, doing) = (text(&told["who"]), text(&told["doing"]));
    let kind = text(&told["kind"]);
    let by = &told["by"];
    if told["allowed"].as_bool() == Some(true) && by.is_object() {
        let mut out = format!("Yes: {who} may {doing} {place}.\n  by: {}\n", line(by));
        let meant = text(&by["who"]);
        if meant != who {
            out.push_str(&format!("  {who} is meant by {meant}\n"));
        }
        return out;
    }
    let mut out = format!("No: {who} may not {doing} {place} ({kind}).\n");
    if by.is_object() {
        // The right is not what is missing.
        out.push_str(&format!("  the right is there: {}\n", line(by)));
        return out;
    }
    for unmet in told["unmet"].as_array().into_iter().flatten() {
        let (binding, why) = (line(&unmet["binding"]), text(&unmet["why"]));
        out.push_str(&format!("  not by: {binding}: {why}\n"));
    }
    let roles = words(&told["roles"]);
    out.push_str(&format!(
        "  missing: {}, which these roles give: {}\n",
        text(&told["permission"]),
        roles.join(", ")
    ));
    // No grant would reach it: a robot has rights in its own namespace only.
    let home = split_robot_name(&who).map(|(home, _)| home);
    if let Some(home) = home.filter(|home| !lies_in(repository.unwrap_or_default(), home)) {
        out.push_str(&format!(
            "  a robot of {home} can have rights there only; make one where it is needed\n"
        ));
        return out;
    }
    let grantors = words(&told["grantors"]);
    if !grantors.is_empty() {
        out.push_str(&format!("  could be granted by: {}\n", grantors.join(", ")));
    }
    if let (Some(role), Some(repository)) = (roles.first(), repository) {
        out.push_str(&format!(
            "  as in: wharf grant {who} {role} on {repository}\n"
        ));
    }
    out
}

fn lies_in(repository: &str, namespace: &str) -> bool {
    let rest = repository.strip_prefix(namespace);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn line(binding: &Value) -> String {
    let on = match text(&binding["on"]) {
        on if on.is_empty() => "everywhere".to_owned(),
        on => format!("on {on}"),
    };
    let conditions = match text(&binding["conditions"]) {
        conditions if conditions.is_empty() => conditions,
        conditions => format!(", {conditions}"),
    };
    format!(
        "{} is {} {on}{conditions} ({})",
        text(&binding["who"]),
        text(&binding["role"]),
        text(&binding["origin"])
    )
}
