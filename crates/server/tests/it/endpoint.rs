//! Every address with every method for every kind of caller.

use wharf::http::route::Route;
use wharf_core::access::{Permission, Role};
use wharf_testkit::{TestOptions, TestServer, Version};

/// Who asks: the role that they have everywhere, or nobody.
const CALLERS: [(&str, Option<Role>); 6] = [
    ("", None),
    ("stranger", Some(Role::None)),
    ("reader", Some(Role::Reader)),
    ("writer", Some(Role::Writer)),
    ("maintainer", Some(Role::Maintainer)),
    ("admin", Some(Role::Admin)),
];

/// What a refusal must be; `None` when the caller is let in, whatever the answer then is.
fn refusal(role: Option<Role>, permission: Permission) -> Option<u16> {
    match role {
        None => Some(401),
        Some(role) if role.permissions().contains(permission) => None,
        Some(_) => Some(403),
    }
}

/// Spec: AUTH-7, AUTH-8, SCOPE-3, UP-41, CAT-2, REF-12.
#[tokio::test]
async fn the_endpoint_table_holds_for_every_caller() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![
            ("stranger", "x"),
            ("reader", "x"),
            ("writer", "x"),
            ("maintainer", "x"),
        ],
        htpasswd_role: Some("none"),
        grants: vec![
            ("reader", "reader", ""),
            ("writer", "writer", ""),
            ("maintainer", "maintainer", ""),
        ],
        ..Default::default()
    })
    .await;
    for version in Version::ALL {
        for (name, role) in CALLERS {
            let client = match name {
                "" => server.admin(version).anonymous(),
                "admin" => server.admin(version),
                name => server.admin(version).with_basic(name, "x"),
            };
            for example in Route::EXAMPLES {
                let route = example.route();
                for method in route.methods() {
                    let expected = match (&route, route.permission(method)) {
                        (_, Some(permission)) => refusal(role, permission),
                        // Whoever signed in may talk to us; the rest asks first (PING-2).
                        (Route::Ping | Route::Extensions { name: None }, None) => {
                            role.is_none().then_some(401)
                        }
                        (_, None) => None,
                    };
                    let answer = client
                        .request(method.clone(), example.path)
                        .body("")
                        .send()
                        .await;
                    let status = answer.status.as_u16();
                    let refused = matches!(status, 401 | 403).then_some(status);
                    assert_eq!(refused, expected, "{name:?}: {answer}");
                    assert!(status < 500 || status == 503, "{name:?}: {answer}");
                }
            }
        }
    }
}
