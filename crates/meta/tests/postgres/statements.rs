//! The version before goes on serving while and after this one migrates: each of its statements still means something.

use std::path::Path;

use wharf_meta::test_server::shared;

/// The statements of older schemas, frozen beside their databases: one a line.
fn frozen() -> Vec<(String, Vec<String>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("statements-") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((name, text.lines().map(str::to_owned).collect()));
        }
    }
    assert!(found.iter().map(|(_, lines)| lines.len()).sum::<usize>() > 200);
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_older_versions_run_on_this_schema() {
    let database = shared().database();
    let (client, driver) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    let mut broken = Vec::new();
    for (file, statements) in frozen() {
        for statement in statements {
            if let Err(error) = client.prepare(&statement).await {
                let why = error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), ToString::to_string);
                broken.push(format!("{file}: {statement}\n  {why}"));
            }
        }
    }
    assert!(
        broken.is_empty(),
        "the schema no longer serves the version before:\n{}",
        broken.join("\n")
    );
    // The look is a real one.
    assert!(client.prepare("SELECT none FROM tag").await.is_err());
}
