//! Equal refusals are counted, what is gathered is bounded, and all of it gets into the log.

use super::tests::{detail, entries};
use super::*;
use crate::clock::Clock as _;
use crate::house::House;

fn sight(n: usize) -> Sight {
    Sight {
        kind: Kind::Refuse,
        principal: format!("user-{n}"),
        credential: "password".into(),
        address: Some([10, 0, 0, 1].into()),
        repository: Some("team/a".into()),
        digest: None,
        tag: None,
        asked: "pull".into(),
        reason: "the user name or the password is wrong".into(),
    }
}

fn counted(log: &[EntryRow]) -> u64 {
    let counts = log
        .iter()
        .map(|entry| detail(entry)["count"].as_u64().unwrap());
    counts.sum()
}

#[tokio::test]
async fn a_flood_of_equal_refusals_is_a_few_entries_with_the_right_count() {
    let house = House::new().await;
    let gatherer = &house.registry.audit;
    for n in 0..10_000 {
        gatherer.note(sight(1), house.clock.now_ms(), &format!("req-{n}"));
        if n % 1_000 == 0 {
            gatherer.flush(&house.registry, false).await.unwrap();
            house.clock.advance(1_000 * 9);
        }
    }
    house.clock.advance(1_000 * 60);
    gatherer.flush(&house.registry, false).await.unwrap();
    let log = entries(&house).await;
    assert!(log.len() <= 4, "{}", log.len());
    assert_eq!(counted(&log), 10_000);
    assert_eq!(
        (log[0].action.as_str(), log[0].request.as_str()),
        ("refuse", "req-0"),
        "the first is there at once"
    );
    let last = detail(log.last().unwrap());
    assert!(last["first"].as_i64() < last["last"].as_i64(), "{last}");
}

/// Whoever stops the server meanwhile must not go before it is written.
#[tokio::test]
async fn who_comes_while_some_is_being_written_waits_for_it() {
    let house = House::new().await;
    let gatherer = &house.registry.audit;
    gatherer.note(sight(1), house.clock.now_ms(), "");
    let mut first = std::pin::pin!(gatherer.flush(&house.registry, false));
    let mut second = std::pin::pin!(gatherer.flush(&house.registry, true));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(first.as_mut().poll(&mut cx).is_pending());
    assert!(second.as_mut().poll(&mut cx).is_pending());
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(counted(&entries(&house).await), 1);
}

#[tokio::test]
async fn what_is_more_than_the_bounds_hold_is_counted() {
    let house = House::new().await;
    let gatherer = &house.registry.audit;
    for n in 0..MOST_KNOWN + 500 {
        gatherer.note(sight(n), house.clock.now_ms(), "");
    }
    gatherer.flush(&house.registry, true).await.unwrap();
    let log = entries(&house).await;
    assert_eq!(counted(&log), (MOST_KNOWN + 500) as u64);
    assert!(log.len() < 500, "{}", log.len());
    let overflow = log
        .iter()
        .find(|entry| entry.action == "audit.overflow")
        .unwrap();
    assert_eq!(detail(overflow)["count"], gatherer.counts().1);
    // Old ones make room.
    house.clock.advance(1_000 * 120);
    gatherer.flush(&house.registry, false).await.unwrap();
    gatherer.note(sight(77_777), house.clock.now_ms(), "");
    gatherer.flush(&house.registry, false).await.unwrap();
    assert_eq!(
        entries(&house).await.last().unwrap().principal,
        "user-77777"
    );
}

#[tokio::test]
async fn long_names_are_cut() {
    let house = House::new().await;
    let long = Sight {
        principal: "é".repeat(10_000),
        ..sight(1)
    };
    house.registry.audit.note(long, 1, "");
    house
        .registry
        .audit
        .flush(&house.registry, false)
        .await
        .unwrap();
    assert!(entries(&house).await[0].principal.len() < 310);
}
