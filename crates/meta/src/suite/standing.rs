//! What directories say of accounts: negative answers add up, a positive one takes all back.

use super::NOW;
use crate::Meta;
use crate::access::account::{Arrive, Arrived};
use crate::access::standing::{Check, Due, Of, StandingRow};

async fn came(meta: &Meta, provider: &str, subject: &str) {
    let arrive = Arrive {
        provider: provider.into(),
        subject: subject.into(),
        issuer: String::new(),
        wished: Some(format!("{provider}-{subject}")),
        groups: Vec::new(),
        telling: Vec::new(),
        at: NOW,
    };
    let made = meta.write(arrive).await.unwrap();
    assert!(matches!(made, Arrived::New(_)), "{made:?}");
}

async fn check(meta: &Meta, subject: &str, at: i64, found: bool) -> bool {
    let check = Check {
        provider: "corp".into(),
        subject: subject.into(),
        at,
        found,
        enough: 3,
    };
    meta.write(check).await.unwrap()
}

async fn of(meta: &Meta, subject: &str) -> StandingRow {
    let of = Of {
        user: format!("corp-{subject}"),
    };
    meta.read(of).await.unwrap().remove(0)
}

async fn due(meta: &Meta, before: i64, missed_before: i64, limit: u32) -> Vec<String> {
    let due = Due {
        provider: "corp".into(),
        before,
        missed_before,
        limit,
    };
    let rows = meta.read(due).await.unwrap();
    rows.into_iter().map(|row| row.subject).collect()
}

/// Three in a row, and no fewer; one that is there begins anew.
pub async fn negative_answers_add_up(meta: Meta) {
    came(&meta, "corp", "1").await;
    assert!(!check(&meta, "1", NOW, false).await);
    assert!(!check(&meta, "1", NOW + 1, false).await);
    assert!(!check(&meta, "1", NOW + 2, true).await);
    assert_eq!(of(&meta, "1").await.misses, 0);
    for at in 3..5 {
        assert!(!check(&meta, "1", NOW + at, false).await);
    }
    assert!(check(&meta, "1", NOW + 5, false).await);
    assert!(check(&meta, "1", NOW + 6, false).await);
    assert_eq!(of(&meta, "1").await.gone_at, Some(NOW + 5));
    assert!(!check(&meta, "1", NOW + 7, true).await);
    assert_eq!(of(&meta, "1").await.gone_at, None);
    // An account that was taken away meanwhile is nobody's.
    assert!(!check(&meta, "2", NOW, false).await);
}

/// Those that were not there come first and sooner, those of others never.
pub async fn accounts_are_due_by_age(meta: Meta) {
    for subject in ["1", "2", "3"] {
        came(&meta, "corp", subject).await;
    }
    came(&meta, "other", "9").await;
    assert_eq!(due(&meta, NOW, NOW, 10).await, ["1", "2", "3"]);
    check(&meta, "1", NOW, true).await;
    check(&meta, "2", NOW + 1, false).await;
    assert_eq!(due(&meta, NOW, NOW, 10).await, ["3"]);
    assert_eq!(due(&meta, NOW, NOW + 2, 10).await, ["2", "3"]);
    assert_eq!(due(&meta, NOW + 5, NOW + 5, 2).await, ["2", "3"]);
    // What is gone is looked for as rarely as what is there.
    check(&meta, "2", NOW + 1, false).await;
    check(&meta, "2", NOW + 1, false).await;
    assert_eq!(due(&meta, NOW, NOW + 5, 10).await, ["3"]);
}
