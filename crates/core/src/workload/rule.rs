//! What a token must say so that a rule matches it.

use serde::{Deserialize, Serialize};

use super::claim::{self, Claims, LONGEST_PATTERN, Pattern, texts};
use super::issuer::{Begins, Kind, SettingError, wrong};

/// Most conditions of one rule.
const MOST_CONDITIONS: usize = 32;
/// Most values and patterns of one condition.
const MOST_VALUES: usize = 100;
/// Most bytes of a token's value in an explanation.
const LONGEST_TOLD: usize = 100;

/// What one claim must be: one of these values, or of these patterns. Of a claim that is a list one entry will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// The claim's path.
    pub claim: String,
    /// Values, letter by letter.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// Patterns.
    #[serde(default, rename = "glob", skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<Pattern>,
}

/// What a token must say: all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// Never empty.
    pub conditions: Vec<Condition>,
}

impl Condition {
    /// A claim that must have this value.
    pub fn equal(claim: &str, value: &str) -> Self {
        Self {
            claim: claim.into(),
            values: vec![value.into()],
            patterns: Vec::new(),
        }
    }

    fn unmet(&self, claims: &Claims) -> Option<String> {
        let Some(found) = claim::find(claims, &self.claim) else {
            return Some(format!(
                "{}: the token has no such claim, and {}",
                self.claim,
                self.asks()
            ));
        };
        let found = texts(found);
        let fits = |text: &str| {
            self.values.iter().any(|value| value == text)
                || self.patterns.iter().any(|pattern| pattern.matches(text))
        };
        if found.iter().any(|text| fits(text)) {
            return None;
        }
        let told: Vec<String> = found.iter().take(5).map(|text| told(text)).collect();
        let told = match told.is_empty() {
            true => "nothing that is text".to_owned(),
            false => told.join(", "),
        };
        Some(format!("{} is {told}, and {}", self.claim, self.asks()))
    }

    fn asks(&self) -> String {
        let values = self.values.iter().map(|value| told(value));
        let patterns = self.patterns.iter();
        let patterns =
            patterns.map(|pattern| format!("a text like {}", told(&pattern.to_string())));
        let mut all: Vec<String> = values.chain(patterns).collect();
        let more = all.len().saturating_sub(5);
        all.truncate(5);
        let more = match more {
            0 => String::new(),
            more => format!(" or {more} others"),
        };
        format!("the rule asks for {}{more}", all.join(" or "))
    }
}

fn told(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TOLD) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl RuleSettings {
    /// Whether all of it can be meant for tokens of such an issuer.
    pub fn check(&self, kind: Kind) -> Result<(), SettingError> {
        let field = "conditions";
        if self.conditions.is_empty() || self.conditions.len() > MOST_CONDITIONS {
            let reason = format!("a rule asks for 1 to {MOST_CONDITIONS} claims, such as sub=NAME");
            return Err(wrong(field, reason));
        }
        for (at, condition) in self.conditions.iter().enumerate() {
            let claim = &condition.claim;
            if claim.is_empty()
                || claim.len() > LONGEST_PATTERN
                // In a file of `wharf apply`, these end its name.
                || claim.chars().any(|c| c.is_control() || c == '=' || c == '~')
            {
                return Err(wrong(
                    field,
                    "a claim is named by its path without = and ~, such as kubernetes.io.namespace",
                ));
            }
            if self.conditions[..at]
                .iter()
                .any(|other| other.claim == *claim)
            {
                return Err(wrong(
                    field,
                    format!("{claim} is asked for twice; name all its values in one place"),
                ));
            }
            let count = condition.values.len() + condition.patterns.len();
            if count == 0 || count > MOST_VALUES {
                return Err(wrong(
                    field,
                    format!("{claim}: name 1 to {MOST_VALUES} values or patterns"),
                ));
            }
            let fits = |value: &String| !value.is_empty() && value.len() <= LONGEST_PATTERN;
            if !condition.values.iter().all(fits) {
                return Err(wrong(
                    field,
                    format!("{claim}: a value has 1 to {LONGEST_PATTERN} bytes"),
                ));
            }
        }
        let anchors = kind.anchors();
        let is_anchor = |condition: &Condition| {
            anchors.contains(&&*condition.claim) && condition.patterns.is_empty()
        };
        if !anchors.is_empty() && !self.conditions.iter().any(is_anchor) {
            let all = anchors.join(", ");
            let reason = format!(
                "everybody gets tokens of this issuer, and names can be given to others: ask for an exact value of one of {all}"
            );
            return Err(wrong(field, reason));
        }
        Ok(())
    }

    /// Why the rule does not match; empty: it does.
    pub fn unmet(&self, kind: Kind, claims: &Claims) -> Vec<String> {
        let conditions = self.conditions.iter();
        let mut unmet: Vec<String> = conditions.filter_map(|one| one.unmet(claims)).collect();
        if let Some(begins) = kind.begins()
            && self.condition(begins.claim).is_none()
        {
            let claim = begins.claim;
            let found = claim::find(claims, claim).map(texts).unwrap_or_default();
            if found.is_empty() {
                unmet.push(format!("{claim}: the token does not say how the run began"));
            }
            for value in found.iter().filter(|value| !self.trusts(&begins, value)) {
                unmet.push(format!(
                    "{claim} is {}: such a run can come from a stranger, and gets nothing unless a rule asks for {claim}",
                    told(value)
                ));
            }
        }
        unmet
    }

    fn condition(&self, claim: &str) -> Option<&Condition> {
        self.conditions.iter().find(|one| one.claim == claim)
    }

    /// Whether a run that began so is of somebody who may write there.
    fn trusts(&self, begins: &Begins, value: &str) -> bool {
        let sure = |claim: &str| {
            let condition = self.condition(claim);
            condition.is_some_and(|one| one.patterns.is_empty() && one.values == ["true"])
        };
        let inherited = |(source, claim): (&str, &str)| source == value && sure(claim);
        begins.own.contains(&value) || begins.inherits.is_some_and(inherited)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rule(conditions: Value) -> RuleSettings {
        serde_json::from_value(json!({ "conditions": conditions })).unwrap()
    }

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_claim_whose_name_no_file_can_hold_is_refused() {
        for claim in ["a=b", "a~b", "", "a\nb"] {
            let rule = rule(json!([{"claim": claim, "in": ["x"]}]));
            let error = rule.check(Kind::Oidc).unwrap_err().to_string();
            assert!(error.contains("without = and ~"), "{claim:?}: {error}");
        }
    }

    #[test]
    fn all_conditions_count_and_one_value_of_each() {
        let rule = rule(json!([
            {"claim": "kubernetes.io.namespace", "in": ["prod", "stage"]},
            {"claim": "groups", "in": ["a"], "glob": ["team-*"]},
        ]));
        assert_eq!(rule.check(Kind::Kubernetes), Ok(()));
        let unmet = |claims: &Claims| rule.unmet(Kind::Kubernetes, claims).len();
        let token = |namespace: &str, groups: Value| {
            claims(json!({"kubernetes.io": {"namespace": namespace}, "groups": groups}))
        };
        assert_eq!(unmet(&token("prod", json!("a"))), 0);
        assert_eq!(unmet(&token("stage", json!(["x", "team-7"]))), 0);
        assert_eq!(unmet(&token("prod2", json!("a"))), 1);
        assert_eq!(unmet(&token("prod", json!("team-a/b"))), 1);
        assert_eq!(unmet(&token("Prod", json!(["x"]))), 2);
        assert_eq!(unmet(&claims(json!({}))), 2);
        let why = rule.unmet(Kind::Kubernetes, &token("dev", json!("a")));
        let wanted = r#"kubernetes.io.namespace is "dev", and the rule asks for "prod" or "stage""#;
        assert_eq!(why, [wanted]);
    }

    /// Spec: OIDC-1.
    #[test]
    fn tokens_of_everybody_need_an_id_that_is_never_given_again() {
        for (kind, conditions, good) in [
            (
                Kind::Github,
                json!([{"claim": "repository_id", "in": ["7"]}]),
                true,
            ),
            (
                Kind::Github,
                json!([{"claim": "repository_owner_id", "in": ["7"]}]),
                true,
            ),
            (
                Kind::Github,
                json!([{"claim": "sub", "in": ["repo:a/b:ref:refs/heads/main"]}]),
                false,
            ),
            (
                Kind::Github,
                json!([{"claim": "repository", "in": ["a/b"]}]),
                false,
            ),
            (
                Kind::Github,
                json!([{"claim": "repository_id", "glob": ["7*"]}]),
                false,
            ),
            (
                Kind::Github,
                json!([{"claim": "repository_id", "in": ["7"], "glob": ["8*"]}]),
                false,
            ),
            (
                Kind::Gitlab,
                json!([{"claim": "project_id", "in": ["7"]}]),
                true,
            ),
            (
                Kind::Gitlab,
                json!([{"claim": "project_path", "in": ["a/b"]}]),
                false,
            ),
            (Kind::Oidc, json!([{"claim": "sub", "in": ["x"]}]), true),
            (Kind::Oidc, json!([]), false),
            (Kind::Oidc, json!([{"claim": "sub"}]), false),
            (Kind::Oidc, json!([{"claim": "", "in": ["x"]}]), false),
            (Kind::Oidc, json!([{"claim": "sub", "in": [""]}]), false),
            (
                Kind::Oidc,
                json!([{"claim": "sub", "in": ["x"]}, {"claim": "sub", "in": ["y"]}]),
                false,
            ),
        ] {
            assert_eq!(
                rule(conditions.clone()).check(kind).is_ok(),
                good,
                "{kind:?} {conditions}"
            );
        }
        for unknown in [
            json!([{"claim": "a", "not": ["b"]}]),
            json!([{"claim": "a", "glob": ["*"]}]),
        ] {
            let read = serde_json::from_value::<RuleSettings>(json!({ "conditions": unknown }));
            assert!(read.is_err(), "{unknown}");
        }
    }

    /// Spec: OIDC-2.
    #[test]
    fn a_pull_request_gets_nothing_unless_a_rule_says_so() {
        let id = json!({"claim": "repository_id", "in": ["7"]});
        let plain = rule(json!([id]));
        let open = rule(json!([id, {"claim": "event_name", "in": ["pull_request"]}]));
        let of = |event: &str| claims(json!({"repository_id": "7", "event_name": event}));
        let matches =
            |rule: &RuleSettings, claims: &Claims| rule.unmet(Kind::Github, claims).is_empty();
        assert!(matches(&plain, &of("push")) && matches(&plain, &of("workflow_dispatch")));
        for event in [
            "pull_request",
            "pull_request_target",
            "issue_comment",
            "workflow_run",
            // Anybody may edit an open wiki; other services check and deploy what strangers propose.
            "gollum",
            "check_run",
            "deployment_status",
            // What there is not yet.
            "pull_request_of_tomorrow",
        ] {
            assert!(!matches(&plain, &of(event)), "{event}");
        }
        assert!(matches(&open, &of("pull_request")));
        assert!(!matches(&open, &of("pull_request_target")) && !matches(&open, &of("push")));
        // Who does not say where a run comes from cannot say that it comes from no stranger.
        assert!(!matches(&plain, &claims(json!({"repository_id": "7"}))));
        let gitlab = rule(json!([{"claim": "project_id", "in": ["7"]}]));
        let of = |source: &str| claims(json!({"project_id": "7", "pipeline_source": source}));
        assert!(gitlab.unmet(Kind::Gitlab, &of("push")).is_empty());
        for source in [
            "merge_request_event",
            "external_pull_request_event",
            "parent_pipeline",
            "source_of_tomorrow",
        ] {
            assert!(
                !gitlab.unmet(Kind::Gitlab, &of(source)).is_empty(),
                "{source}"
            );
        }
        // A merge request's pipeline has children, and is on no protected ref.
        let sure = json!([{"claim": "project_id", "in": ["7"]}, {"claim": "ref_protected", "in": ["true"]}]);
        let sure = rule(sure);
        let child = |is: &str| {
            claims(
                json!({"project_id": "7", "pipeline_source": "parent_pipeline", "ref_protected": is}),
            )
        };
        assert!(sure.unmet(Kind::Gitlab, &child("true")).is_empty());
        assert_eq!(sure.unmet(Kind::Gitlab, &child("false")).len(), 1);
        let any = json!([{"claim": "project_id", "in": ["7"]}, {"claim": "ref_protected", "in": ["true", "false"]}]);
        assert_eq!(rule(any).unmet(Kind::Gitlab, &child("false")).len(), 1);
    }

    proptest! {
        #[test]
        fn a_rule_matches_when_each_condition_has_its_value(
            token in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
            asked in prop::collection::btree_map("[a-c]", prop::collection::vec("[x-z]", 1..3), 1..4),
        ) {
            let conditions = asked.iter().map(|(claim, values)| json!({"claim": claim, "in": values}));
            let rule = rule(conditions.collect());
            let wanted = asked.iter().all(|(claim, values)| token.get(claim).is_some_and(|found| values.contains(found)));
            let token = claims(json!(token));
            prop_assert_eq!(rule.unmet(Kind::Oidc, &token).is_empty(), wanted);
        }
    }
}
