//! People, rights and secrets across `kill -9`: a change that was acknowledged is there, a refusal that it brought holds, and of one that
//! was not answered all is there or nothing.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Process, TestOptions, Version};

use crate::browser::Browser;
use crate::terminal::{begin, decide, poll, refresh};

const PASSWORD: &str = "wonderland looks";

async fn start() -> Process {
    let options = TestOptions::default();
    Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await
}

async fn ask(client: &Client, method: Method, path: &str, body: Value) -> Option<Response> {
    let request = client.request(method, path);
    let request = match body {
        Value::Null => request,
        body => request
            .header("content-type", "application/json")
            .body(body.to_string()),
    };
    let answer = request.try_send().await.ok()?;
    assert!(
        answer.status.is_success(),
        "an answer that no kill explains: {answer}"
    );
    Some(answer)
}

/// What anybody can see of a user: whether they are there and locked out, whether their password and token are good, and whether they
/// hold a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    there: bool,
    disabled: bool,
    password: bool,
    token: bool,
    grant: bool,
}

/// One user, on a way from nothing to nothing.
struct Person {
    name: String,
    /// How many steps were acknowledged.
    done: usize,
    id: String,
    secret: String,
}

const NOTHING: Seen = Seen {
    there: false,
    disabled: false,
    password: false,
    token: false,
    grant: false,
};

/// After so many steps.
fn after(steps: usize) -> Seen {
    let made = Seen {
        there: true,
        password: true,
        ..NOTHING
    };
    let locked = Seen {
        there: true,
        disabled: true,
        ..NOTHING
    };
    match steps {
        1 => made,
        2 => Seen {
            token: true,
            ..made
        },
        3 => Seen {
            token: true,
            grant: true,
            ..made
        },
        4 => Seen {
            token: true,
            ..made
        },
        5 => locked,
        6 => Seen {
            token: true,
            ..made
        },
        7 => made,
        _ => NOTHING,
    }
}

const STEPS: usize = 8;

impl Person {
    fn new(name: String) -> Self {
        let (id, secret) = (String::new(), String::new());
        Self {
            name,
            done: 0,
            id,
            secret,
        }
    }

    /// The next step; false: it was not answered.
    async fn step(&mut self, admin: &Client) -> bool {
        let name = &self.name;
        let user = format!("/api/v1/users/{name}");
        let grant = json!({"who": name, "role": "reader", "on": "team"});
        let patch = |disabled: bool| json!({ "disabled": disabled });
        let own = admin.clone().with_basic(name, PASSWORD);
        let (client, method, path, body) = match self.done {
            0 => {
                let body = json!({"name": name, "password": PASSWORD});
                (admin, Method::POST, "/api/v1/users".to_owned(), body)
            }
            1 => (
                &own,
                Method::POST,
                format!("{user}/tokens"),
                json!({"name": "laptop"}),
            ),
            2 => (admin, Method::POST, "/api/v1/bindings".to_owned(), grant),
            3 => {
                let path = format!("/api/v1/bindings?who={name}&role=reader&on=team");
                (admin, Method::DELETE, path, Value::Null)
            }
            4 => (admin, Method::PATCH, user, patch(true)),
            5 => (admin, Method::PATCH, user, patch(false)),
            6 => {
                let path = format!("/api/v1/credentials/{}", self.id);
                (admin, Method::DELETE, path, Value::Null)
            }
            _ => (admin, Method::DELETE, user, Value::Null),
        };
        let Some(answer) = ask(client, method, &path, body).await else {
            return false;
        };
        if self.done == 1 {
            let made = answer.json();
            self.id = made["id"].as_str().unwrap().to_owned();
            self.secret = made["secret"].as_str().unwrap().to_owned();
        }
        self.done += 1;
        true
    }

    async fn seen(&self, admin: &Client) -> Seen {
        let status = async |client: &Client, path: &str| {
            let answer = client.get(path).send().await;
            answer.status.as_u16()
        };
        let name = &self.name;
        let shown = admin.get(&format!("/api/v1/users/{name}")).send().await;
        let shown = (shown.status == 200).then(|| shown.json());
        let own = admin.clone().with_basic(name, PASSWORD);
        let token = admin.clone().with_token(&self.secret);
        let held = admin.get(&format!("/api/v1/bindings?who={name}"));
        let held = held.send().await.expect_status(200).to_string();
        Seen {
            there: shown.is_some(),
            disabled: shown.is_some_and(|shown| shown["disabled_at"].is_string()),
            password: status(&own, "/api/v1/me").await == 200,
            token: !self.secret.is_empty() && status(&token, "/api/v1/me").await == 200,
            grant: held.contains("\"reader\""),
        }
    }

    /// Compares with what was acknowledged, and takes note of what was done without an answer.
    async fn look(&mut self, admin: &Client) {
        let seen = self.seen(admin).await;
        let (before, then) = (after(self.done), after(self.done + 1));
        // The answer with the secret was lost: nobody has it.
        let then = Seen {
            token: then.token && !self.secret.is_empty(),
            ..then
        };
        assert!(
            seen == before || seen == then,
            "{} after {} steps: {seen:?}",
            self.name,
            self.done
        );
        let lost = self.done == 1 && self.secret.is_empty();
        if lost {
            // Goes the rest of its way without.
            let gone = admin.delete(&format!("/api/v1/users/{}", self.name));
            gone.send().await.expect_status(204);
            self.done = STEPS;
        } else if seen != before {
            self.done += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_people_and_rights_that_was_acknowledged_is_there_after_a_kill() {
    let mut server = start().await;
    let mut people: Vec<Person> = Vec::new();
    let (mut steps, mut round) = (0, 0);
    // A busy machine takes more rounds.
    while round < 8 || steps <= 40 {
        assert!(round < 80, "{steps} steps in all");
        let admin = server.admin(Version::Http1);
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let admin = admin.clone();
                let mut all: Vec<Person> = Vec::new();
                let unfinished = people.pop();
                tokio::spawn(async move {
                    let mut person = unfinished;
                    for m in 0.. {
                        let mut one = person
                            .take()
                            .filter(|one| one.done < STEPS)
                            .unwrap_or_else(|| Person::new(format!("p{round}-{n}-{m}")));
                        while one.done < STEPS {
                            if !one.step(&admin).await {
                                all.push(one);
                                return all;
                            }
                        }
                        all.push(one);
                    }
                    all
                })
            })
            .collect();
        // Not the same moment in each round, and long enough for passwords to be hashed.
        tokio::time::sleep(Duration::from_millis(400 + 173 * (round % 8))).await;
        server.kill();
        let before = people.len();
        for task in tasks {
            people.extend(task.await.unwrap());
        }
        server.again().await;
        let admin = server.admin(Version::Http1);
        for person in &mut people[before..] {
            steps += person.done;
            person.look(&admin).await;
        }
        people.retain(|person| person.done < STEPS);
        round += 1;
    }
}

/// What signs in programs and browsers: a refresh token that was spent stays spent, what was ended stays ended, and whoever was signed in
/// is so afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_and_terminals_end_once_and_go_on_across_a_kill() {
    let mut server = start().await;
    let admin = server.admin(Version::Http1);
    let user = json!({"name": "anna", "password": PASSWORD});
    ask(&admin, Method::POST, "/api/v1/users", user)
        .await
        .unwrap();
    let mut browser = Browser::at(&admin);
    browser.sign_in("anna", PASSWORD).await.expect_status(303);
    let begun = begin(&browser.client).await;
    let code = begun["user_code"].as_str().unwrap();
    decide(&mut browser, code, "approve")
        .await
        .expect_status(200);

    let again = async |server: &mut Process, browser: &mut Browser| {
        server.kill();
        server.again().await;
        browser.client = server.admin(Version::Http1).anonymous();
    };
    // Approved, then killed: the program fetches it from the next process, once.
    again(&mut server, &mut browser).await;
    browser.get("/account/sessions").await.expect_status(200);
    let device = begun["device_code"].as_str().unwrap();
    let granted = poll(&browser.client, device)
        .await
        .expect_status(200)
        .json();
    let first = granted["refresh_token"].as_str().unwrap().to_owned();
    again(&mut server, &mut browser).await;
    let next = refresh(&browser.client, &first).await.expect_status(200);
    let second = next.json()["refresh_token"].as_str().unwrap().to_owned();
    again(&mut server, &mut browser).await;
    let third = refresh(&browser.client, &second).await.expect_status(200);
    let third = third.json()["refresh_token"].as_str().unwrap().to_owned();
    again(&mut server, &mut browser).await;
    // Spent two processes ago: somebody else has it.
    refresh(&browser.client, &first).await.expect_status(400);
    again(&mut server, &mut browser).await;
    refresh(&browser.client, &third).await.expect_status(400);
    browser.get("/account/sessions").await.expect_status(200);
    let admin = server.admin(Version::Http1);
    let ended = admin.delete("/api/v1/users/anna/sessions").send().await;
    assert!(ended.status.is_success(), "{ended}");
    again(&mut server, &mut browser).await;
    let page = browser.get("/account/sessions").await;
    assert_ne!(page.status, 200, "{page}");
}
