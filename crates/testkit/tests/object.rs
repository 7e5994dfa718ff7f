//! The blob store in a bucket, over HTTP: the shared suite, and what happens when requests go wrong.

use std::sync::Arc;
use std::time::Duration;

use wharf_blob::object::{Azure, Client, Credentials, Gcs, ObjectOptions, S3 as Bucket, Service};
use wharf_blob::suite::{Fixture, Session, collect, noise};
use wharf_blob::{BlobStore, Checkpoint, Error, Ground, Key, Object, Owned, blob_suite};
use wharf_oci::{Algorithm, Digest};
use wharf_testkit::s3::{ACCESS_KEY, BUCKET, Fault, Kind, S3, SECRET_KEY, Saying};

/// The least that the service takes.
const PART: u64 = 5 << 20;

fn options(endpoint: String, bucket: &str, access_key: &str, secret: &str) -> ObjectOptions {
    ObjectOptions {
        service: Service::S3(Bucket {
            bucket: bucket.to_owned(),
            endpoint: Some(endpoint),
            path_style: true,
            credentials: Credentials::Static {
                access_key_id: access_key.to_owned(),
                secret_access_key: secret.to_owned(),
            },
            ..Bucket::default()
        }),
        prefix: "some/where".into(),
        part_size: PART,
        client: Client::default(),
    }
}

fn open(s3: &S3) -> Object {
    Object::open(&options(s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY)).unwrap()
}

struct House {
    s3: S3,
    store: Object,
}

impl House {
    async fn new() -> Self {
        let s3 = S3::start().await;
        let store = open(&s3);
        Self { s3, store }
    }

    /// Publishes so many bytes in one upload.
    async fn publish(&self, length: usize) -> Result<(Key, Session), Error> {
        let session = Session::new();
        let mut writer = session
            .resume(&self.store, &Checkpoint::START, Algorithm::Sha256)
            .await?;
        writer.write(noise(7, length)).await?;
        let (digest, _) = writer.finish(Algorithm::Sha256).await?;
        assert_eq!(digest, Digest::of(Algorithm::Sha256, &noise(7, length)));
        Ok((writer.publish(&digest).await?, session))
    }

    async fn content(&self, key: &Key, length: usize) -> Result<Vec<u8>, Error> {
        let blob = self.store.open(key, length as u64).await?;
        collect(blob.stream(0..length as u64)).await
    }
}

impl Fixture for House {
    fn store(&self) -> Arc<dyn BlobStore> {
        Arc::new(self.store.clone())
    }

    fn restart(&mut self) {
        self.store = open(&self.s3);
    }

    fn is_remote(&self) -> bool {
        true
    }

    // The service makes a file name of each key, and one with a sha512 in it is too long for that.
    fn algorithms(&self) -> [Algorithm; 2] {
        [Algorithm::Sha256; 2]
    }
}

blob_suite!(s3, House::new().await);

/// Five parts.
const LENGTH: usize = 22_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_costs_one_request_for_each_part_and_two() {
    let house = House::new().await;
    house.publish(LENGTH).await.unwrap();
    let counts = house.s3.take_counts();
    assert_eq!(counts[&Kind::Begin], 1);
    assert_eq!(counts[&Kind::Part], 5);
    assert_eq!(counts[&Kind::Complete], 1);
    assert_eq!(counts.values().sum::<u64>(), 7, "{counts:?}");
    let (key, _) = house.publish(PART as usize).await.unwrap();
    let counts = house.s3.take_counts();
    assert_eq!((counts[&Kind::Put], counts.len()), (1, 1), "{counts:?}");
    house.content(&key, PART as usize).await.unwrap();
    let counts = house.s3.take_counts();
    assert_eq!((counts[&Kind::Get], counts.len()), (1, 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_now_and_then_loses_nothing() {
    for fault in [Fault::SlowDown, Fault::Refuse, Fault::LoseAnswer] {
        for kind in [Kind::Begin, Kind::Part, Kind::Complete] {
            let house = House::new().await;
            house.s3.fault(kind, 0, 1, fault);
            let (key, _) = house.publish(LENGTH).await.unwrap();
            let content = house.content(&key, LENGTH).await.unwrap();
            assert!(content == noise(7, LENGTH), "{fault:?} at {kind:?}");
        }
        let house = House::new().await;
        house.s3.fault(Kind::Put, 0, 1, fault);
        let (key, _) = house.publish(1000).await.unwrap();
        assert_eq!(house.content(&key, 1000).await.unwrap(), noise(7, 1000));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_goes_on_where_it_did() {
    let house = House::new().await;
    let (key, _) = house.publish(LENGTH).await.unwrap();
    for fault in [Fault::Cut, Fault::Refuse, Fault::SlowDown] {
        house.s3.fault(Kind::Get, 0, 2, fault);
        let content = house.content(&key, LENGTH).await.unwrap();
        assert!(content == noise(7, LENGTH), "{fault:?}");
        house.s3.heal();
    }
    // Short answers that look whole: the rest is asked for, again and again, and the end is an error at worst.
    house.s3.fault(Kind::Get, 0, 2, Fault::Truncate);
    if let Ok(content) = house.content(&key, LENGTH).await {
        assert!(content == noise(7, LENGTH));
    }
}

/// Complete was done and nobody heard of it: the repeated request finds no upload, the object tells.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_answer_to_complete_is_decided_by_the_object() {
    let house = House::new().await;
    house.s3.fault(Kind::Complete, 0, 1, Fault::LoseAnswer);
    let (key, _) = house.publish(LENGTH).await.unwrap();
    assert_eq!(house.s3.count(Kind::Head), 1);
    assert!(house.content(&key, LENGTH).await.unwrap() == noise(7, LENGTH));
}

/// Complete was done by a request whose row never came: whoever repeats it finds the bytes as an object.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_end_finds_what_an_earlier_one_completed() {
    let house = House::new().await;
    let session = Session::new();
    let (start, algorithm) = (Checkpoint::START, Algorithm::Sha256);
    let mut writer = session
        .resume(&house.store, &start, algorithm)
        .await
        .unwrap();
    writer.write(noise(7, LENGTH)).await.unwrap();
    let claimed = writer.sync().await.unwrap();
    drop(writer);
    let expected = Digest::of(algorithm, &noise(7, LENGTH));
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut writer = session
            .resume(&house.store, &claimed, algorithm)
            .await
            .unwrap();
        let (digest, size) = writer.finish(algorithm).await.unwrap();
        assert_eq!((&digest, size), (&expected, LENGTH as u64));
        keys.push(writer.publish(&digest).await.unwrap());
    }
    assert_eq!(keys[0], keys[1]);
    assert!(house.content(&keys[1], LENGTH).await.unwrap() == noise(7, LENGTH));
}

/// The same, and then the client appends instead of ending: it hears that, nothing is lost, and the end works with whatever
/// the cut request had appended.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_appended_to_what_an_earlier_request_completed() {
    let house = House::new().await;
    let session = Session::new();
    let (algorithm, all) = (Algorithm::Sha256, noise(7, LENGTH));
    let mut writer = session
        .resume(&house.store, &Checkpoint::START, algorithm)
        .await
        .unwrap();
    // Two parts and a bit are claimed, the rest came with the request that was cut off.
    writer.write(all.slice(..11_000_000)).await.unwrap();
    let mut claimed = writer.sync().await.unwrap();
    drop(writer);
    let mut writer = session
        .resume(&house.store, &claimed, algorithm)
        .await
        .unwrap();
    writer.write(all.slice(11_000_000..)).await.unwrap();
    let (digest, _) = writer.finish(algorithm).await.unwrap();
    let key = writer.publish(&digest).await.unwrap();
    drop(writer);
    // Less than a part goes into rows, from which the end takes it.
    for length in [1, 100, 10_000_000] {
        let mut writer = session
            .resume(&house.store, &claimed, algorithm)
            .await
            .unwrap();
        let from = usize::try_from(claimed.offset).unwrap();
        writer.write(all.slice(from..from + length)).await.unwrap();
        match writer.sync().await {
            Ok(checkpoint) => claimed = checkpoint,
            Err(error) => {
                assert!(matches!(error, Error::Completed), "{error}");
                assert_eq!(length, 10_000_000);
            }
        }
    }
    assert_eq!(claimed.offset, 11_000_101);
    let claim = 11_000_101;
    let mut writer = session
        .resume(&house.store, &claimed, algorithm)
        .await
        .unwrap();
    writer.write(all.slice(claim..)).await.unwrap();
    assert_eq!(
        writer.finish(algorithm).await.unwrap(),
        (digest.clone(), LENGTH as u64)
    );
    assert_eq!(writer.publish(&digest).await.unwrap(), key);
    // Other bytes, or fewer: they are not what the object has.
    let mut writer = session
        .resume(&house.store, &claimed, algorithm)
        .await
        .unwrap();
    writer.write(all.slice(claim..LENGTH - 1)).await.unwrap();
    let error = writer.finish(algorithm).await.unwrap_err();
    assert!(matches!(error, Error::UploadLost), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multipart_upload_that_is_gone_ends_the_upload() {
    for kind in [Kind::Part, Kind::Complete] {
        let house = House::new().await;
        house.s3.fault(kind, 0, 1, Fault::NoSuchUpload);
        let error = house.publish(LENGTH).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::UploadLost), "{kind:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_leaves_nothing() {
    let house = House::new().await;
    // Once before it was completed, once after that.
    house.s3.fault(Kind::Complete, 0, 1, Fault::NoSuchUpload);
    house.publish(LENGTH).await.map(|_| ()).unwrap_err();
    assert!(house.s3.loose_parts() > 0);
    let session = Session::new();
    let mut writer = session
        .resume(&house.store, &Checkpoint::START, Algorithm::Sha256)
        .await
        .unwrap();
    writer.write(noise(7, LENGTH)).await.unwrap();
    writer.sync().await.unwrap();
    let begun = session.rows.begun();
    assert_eq!(begun.len(), 1);
    drop(writer);
    house.store.give_up(&begun[0]).await.unwrap();
    house.store.give_up(&begun[0]).await.unwrap();
    let (_, session) = house.publish(LENGTH).await.unwrap();
    assert_eq!(house.s3.objects().len(), 1);
    house.store.give_up(&session.rows.begun()[0]).await.unwrap();
    assert_eq!(house.s3.objects().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_belongs_to_one_installation() {
    let house = House::new().await;
    assert_eq!(house.store.owned_by("one").await, Ok(Owned::Free));
    assert_eq!(house.s3.objects().len(), 0, "looking writes nothing");
    house.store.take("one").await.unwrap();
    assert_eq!(house.store.owned_by("one").await, Ok(Owned::Ours));
    let error = house.store.owned_by("two").await.unwrap_err();
    assert!(
        error.0.contains("(one)") && error.0.contains("storage.s3.bucket"),
        "{error}"
    );
    assert!(house.store.take("two").await.is_err() || house.store.owned_by("one").await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_other_things_in_it_is_left_alone() {
    let house = House::new().await;
    house.publish(10).await.unwrap();
    let error = house.store.owned_by("one").await.unwrap_err();
    assert!(
        error.0.contains("no mark") && error.0.contains("prefix"),
        "{error}"
    );
    assert_eq!(house.s3.objects().len(), 1);
}

/// Also where the service takes no notice of conditions.
#[tokio::test(flavor = "multi_thread")]
async fn of_installations_that_take_a_bucket_at_once_one_gets_it() {
    for unconditional in [false, true] {
        let house = House::new().await;
        if unconditional {
            house.s3.ignore_conditions();
        }
        let mut takers = tokio::task::JoinSet::new();
        let ready = Arc::new(tokio::sync::Barrier::new(8));
        for n in 0..8 {
            let (store, ready) = (open(&house.s3), ready.clone());
            takers.spawn(async move {
                let name = format!("installation-{n}");
                assert_eq!(store.owned_by(&name).await, Ok(Owned::Free));
                ready.wait().await;
                (store.take(&name).await, name)
            });
        }
        let (won, lost): (Vec<_>, Vec<_>) = takers
            .join_all()
            .await
            .into_iter()
            .partition(|(outcome, _)| outcome.is_ok());
        assert_eq!((won.len(), lost.len()), (1, 7), "{won:?} {lost:?}");
        assert_eq!(house.store.owned_by(&won[0].1).await, Ok(Owned::Ours));
        for (outcome, _) in lost {
            let told = outcome.unwrap_err().0;
            // Without conditions a mark may stand for a moment before the last one covers it.
            let winner = if unconditional {
                "installation-"
            } else {
                &won[0].1
            };
            assert!(
                told.contains(&format!("another installation ({winner}")),
                "{told}"
            );
        }
    }
}

/// Asking a full store again makes no room: it is asked once, and what was claimed stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_told_at_once_and_is_no_reason_to_leave_it_alone() {
    let full = Saying {
        status: 507,
        header: None,
        body: "<Error><Code>XMinioStorageFull</Code><Message>no space</Message></Error>",
    };
    let quota = Saying {
        status: 403,
        body: "<Error><Code>QuotaExceeded</Code></Error>",
        ..full
    };
    for saying in [full, quota] {
        for (kind, length) in [
            (Kind::Begin, LENGTH),
            (Kind::Part, LENGTH),
            (Kind::Put, 1000),
        ] {
            let house = House::new().await;
            house.s3.fault(kind, 0, u32::MAX, Fault::Say(saying));
            let error = house.publish(length).await.map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Full { .. }), "{kind:?}: {error}");
            assert!(error.to_string().contains("raise the quota"), "{error}");
            // Two parts are under way at once.
            let most = if kind == Kind::Part { 2 } else { 1 };
            assert!(house.s3.count(kind) <= most, "{kind:?}");
            house.s3.heal();
            house.publish(length).await.unwrap();
            assert!(!house.store.figures().open_circuit);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_at_a_start_names_its_key() {
    let house = House::new().await;
    let endpoint = house.s3.endpoint();
    for (options, key) in [
        (
            options(endpoint.clone(), BUCKET, "nobody", SECRET_KEY),
            "`storage.s3.access_key_id`: the store does not know these credentials",
        ),
        (
            options(endpoint.clone(), BUCKET, ACCESS_KEY, "wrong"),
            "`storage.s3.secret_access_key`: it is not the secret",
        ),
        (
            options(endpoint, "absent", ACCESS_KEY, SECRET_KEY),
            "`storage.s3.bucket`: there is no bucket",
        ),
    ] {
        let store = Object::open(&options).unwrap();
        let error = store.owned_by("one").await.unwrap_err();
        assert!(error.0.contains(key), "{error}");
    }
}

/// What services say, and what is said of it: key and cure first, then their own words.
#[tokio::test(flavor = "multi_thread")]
async fn what_services_say_becomes_a_sentence_with_key_and_cure() {
    let say = |status, body| Saying {
        status,
        header: None,
        body,
    };
    let region = Some(("x-amz-bucket-region", "eu-west-3"));
    let cases = [
        (
            say(
                400,
                "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; expecting \
                      'eu-central-1'</Message><Region>eu-central-1</Region></Error>",
            ),
            "`storage.s3.region`: the bucket is in the region eu-central-1, and requests are signed for us-east-1; write region = \
             \"eu-central-1\"",
        ),
        (
            Saying {
                header: region,
                ..say(301, "<Error><Code>PermanentRedirect</Code></Error>")
            },
            "`storage.s3.region`: the bucket is in the region eu-west-3",
        ),
        (
            Saying {
                header: region,
                ..say(
                    400,
                    "<Error><Code>IllegalLocationConstraintException</Code></Error>",
                )
            },
            "`storage.s3.region`: the bucket is in the region eu-west-3",
        ),
        (
            say(
                400,
                "<Error><Code>IllegalLocationConstraintException</Code></Error>",
            ),
            "`storage.s3.region`: the bucket is not in the region us-east-1",
        ),
        (
            say(403, "<Error><Code>RequestTimeTooSkewed</Code></Error>"),
            "`storage.s3.endpoint`: this machine's clock differs",
        ),
        (
            say(403, "<Error><Code>ExpiredToken</Code></Error>"),
            "`storage.s3.access_key_id`: the credentials are valid no more",
        ),
        (
            say(
                403,
                "<Error><Code>AccessDenied</Code><Message>No.</Message></Error>",
            ),
            "`storage.s3.bucket`: the credentials may not use it; they need the rights to",
        ),
        (
            say(400, "Client sent an HTTP request to an HTTPS server."),
            "`storage.s3.endpoint`: what answers there speaks TLS only; write https://",
        ),
        (
            say(200, "<html>A page, and no object of a bucket.</html>"),
            "`storage.s3.endpoint`: what answers there as the object wharf-installation was not written by Wharf",
        ),
        (
            say(501, "<Error><Code>NotImplemented</Code></Error>"),
            "`storage.s3.endpoint`: the store does not answer sensibly",
        ),
    ];
    let s3 = S3::start().await;
    for (saying, sentence) in cases {
        let mut options = options(s3.endpoint(), BUCKET, ACCESS_KEY, SECRET_KEY);
        options.client.hasty = true;
        let store = Object::open(&options).unwrap();
        s3.fault(None, 0, u32::MAX, Fault::Say(saying));
        let told = store.owned_by("one").await.unwrap_err().0;
        s3.heal();
        assert!(told.contains(sentence), "{told}");
        assert!(!told.contains('<') && !told.contains("Generic"), "{told}");
    }
    // Whatever it says: a clock that far off is why.
    let store = open(&s3);
    s3.set_clock(1_200);
    let denied = say(403, "<Error><Code>AccessDenied</Code></Error>");
    s3.fault(None, 0, 1, Fault::Say(denied));
    let told = store.owned_by("one").await.unwrap_err().0;
    assert!(
        told.contains("this machine's clock is 20 minutes behind the store's"),
        "{told}"
    );
    assert!(told.contains("NTP"), "{told}");
    assert_eq!(store.owned_by("one").await, Ok(Owned::Free));
    assert!(
        store
            .skew()
            .is_some_and(|skew| (-1_205..=-1_195).contains(&skew))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_leads_nowhere_is_said_to() {
    let plain = S3::start().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for (endpoint, sentence) in [
        (free, "nobody answers there"),
        (plain.endpoint().replace("http:", "https:"), "speaks no TLS"),
        (
            "http://no-such-host.invalid".to_owned(),
            "no address is known",
        ),
    ] {
        let mut options = options(endpoint, BUCKET, ACCESS_KEY, SECRET_KEY);
        options.client.hasty = true;
        let told = Object::open(&options).unwrap().owned_by("one").await;
        let told = told.unwrap_err().0;
        assert!(
            told.starts_with("`storage.s3.endpoint`: ") && told.contains(sentence),
            "{told}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_went_away_is_said_to_and_comes_back() {
    let house = House::new().await;
    let (key, _) = house.publish(LENGTH).await.unwrap();
    house.s3.take_counts();
    assert_eq!(house.store.probe().await.unwrap(), None);
    assert!(
        house.s3.take_counts().is_empty(),
        "nothing is asked while all is well"
    );
    house.s3.go_away();
    let error = house.content(&key, LENGTH).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // Long before it is left alone.
    house.store.probe().await.unwrap_err();
    let House { s3, store } = house;
    let house = House {
        s3: s3.come_back().await,
        store,
    };
    assert_eq!(house.store.probe().await.unwrap(), None);
    assert!(house.content(&key, LENGTH).await.unwrap() == noise(7, LENGTH));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_gives_the_blob_to_anybody() {
    let house = House::new().await;
    let (key, _) = house.publish(LENGTH).await.unwrap();
    let url = house.store.signed_url(&key, Duration::from_secs(60)).await;
    let url = url.unwrap().expect("a URL");
    assert!(url.expose().starts_with(&house.s3.endpoint()));
    assert!(url.expose().contains("X-Amz-Signature="));
    assert!(!format!("{url:?}").contains("Signature"));
}

/// The keys of the other services are their own, and so is what they say.
#[tokio::test(flavor = "multi_thread")]
async fn what_google_and_azure_say_names_their_keys() {
    let s3 = S3::start().await;
    let azure = Service::Azure(Azure {
        account: "someone".into(),
        container: "blobs".into(),
        access_key: Some("c2VjcmV0".into()),
        endpoint: Some(s3.endpoint()),
    });
    let gcs = Service::Gcs(Gcs {
        bucket: "blobs".into(),
        endpoint: Some(s3.endpoint()),
        anonymous: true,
        ..Gcs::default()
    });
    for (service, status, body, sentence) in [
        (
            &azure,
            403,
            "<Error><Code>AuthenticationFailed</Code><Message>No.</Message></Error>",
            "`storage.azure.access_key`: the store does not know these credentials",
        ),
        (
            &azure,
            403,
            "<Error><Code>AuthenticationFailed</Code><AuthenticationErrorDetail>Request date header too old: 'Sat'\
             </AuthenticationErrorDetail></Error>",
            "`storage.azure.endpoint`: this machine's clock differs",
        ),
        (
            &azure,
            403,
            "<Error><Code>AuthorizationFailure</Code><Message>Server failed to authenticate the request. Make sure the \
             signature is right.\nRequestId:1\nTime:2</Message></Error>",
            "`storage.azure.access_key`: the store does not know these credentials; take those that its administrator made \
             (the store: AuthorizationFailure: Server failed to authenticate the request. Make sure the signature is right.)",
        ),
        (
            &azure,
            404,
            "<Error><Code>ContainerNotFound</Code></Error>",
            "`storage.azure.container`: there is no bucket",
        ),
        (
            &gcs,
            404,
            "<Error><Code>NoSuchBucket</Code></Error>",
            "`storage.gcs.bucket`: there is no bucket",
        ),
        (
            &gcs,
            400,
            "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid JWT: Token must be a short-lived token (60 \
             minutes) and in a reasonable timeframe.\"}",
            "`storage.gcs.endpoint`: this machine's clock differs",
        ),
        (
            &gcs,
            403,
            "<Error><Code>AccessDenied</Code></Error>",
            "`storage.gcs.bucket`: the credentials may not use it",
        ),
    ] {
        let options = ObjectOptions {
            service: service.clone(),
            prefix: String::new(),
            part_size: PART,
            client: Client {
                hasty: true,
                ..Client::default()
            },
        };
        let saying = Saying {
            status,
            header: None,
            body,
        };
        s3.fault(None, 0, u32::MAX, Fault::Say(saying));
        let store = Object::open(&options).unwrap();
        let told = store.owned_by("one").await.unwrap_err().0;
        s3.heal();
        assert!(told.contains(sentence), "{told}");
    }
}
