//! The clients of a bucket, from environment variables as users know them: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
//! `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP` and the others of `object_store`.
//!
//! Values never appear in a message: one of them is a secret.

use std::{sync::Arc, time::Duration};

use object_store::{
    ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
};
use types::{Error, Result};

use super::{
    RETRIES,
    exchange::{Connector, Credentials, innermost},
    requests::Requests,
};

/// How long a request may take where AWS_TIMEOUT does not say. The completion of a large upload takes a minute and more.
const REQUEST_LIMIT: Duration = Duration::from_secs(180);

/// The client that sends requests again, and the one that only creates.
pub(super) fn clients(
    url: &str,
    bucket: &str,
    vars: &[(String, String)],
    requests: &Arc<Requests>,
) -> Result<(AmazonS3, AmazonS3)> {
    let options = options(vars);
    check_endpoint(url, &options)?;
    // reqwest asks the process for its cryptography; if another library has answered before, that is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = || {
        let chosen = options.iter().filter(|(_, key, _)| !matches!(key, AmazonS3ConfigKey::Client(_)));
        chosen.fold(AmazonS3Builder::new(), |builder, (_, key, value)| builder.with_config(*key, *value))
    };
    let built = |builder: AmazonS3Builder, client: ClientOptions, retry: RetryConfig| {
        let builder = builder.with_bucket_name(bucket).with_client_options(client).with_retry(retry);
        // A request for each object is what every server understands.
        builder.with_disable_bulk_delete(true).build().map_err(|error| refused(url, &options, &error))
    };
    // Its only use is to know where credentials come from.
    let plain = built(builder(), client(&options), RetryConfig { max_retries: 2, ..RETRIES })?;
    let credentials = Arc::new(Credentials::new(Arc::clone(plain.credentials())));
    let builder = || {
        let connector = Connector { requests: Arc::clone(requests) };
        builder().with_credentials(Arc::clone(&credentials) as _).with_http_connector(connector)
    };
    let steady = built(builder(), client(&options), RETRIES)?;
    let mut conditional = HeaderMap::new();
    conditional.insert("if-none-match", HeaderValue::from_static("*"));
    let once = RetryConfig { max_retries: 0, ..RETRIES };
    let creating = built(builder(), client(&options).with_default_headers(conditional), once)?;
    Ok((steady, creating))
}

/// Name, meaning and value of each variable that says something about S3, in the order of their names. What decides how
/// objects are created is not for variables to say.
fn options(vars: &[(String, String)]) -> Vec<(&str, AmazonS3ConfigKey, &str)> {
    let known = vars.iter().filter_map(|(name, value)| {
        let key = name.to_ascii_lowercase().parse().ok()?;
        let ours = matches!(
            key,
            AmazonS3ConfigKey::Bucket
                | AmazonS3ConfigKey::ConditionalPut
                | AmazonS3ConfigKey::CopyIfNotExists
                | AmazonS3ConfigKey::DisableBulkDelete
        );
        (!ours && !value.is_empty()).then_some((name.as_str(), key, value.as_str()))
    });
    known.collect()
}

fn client(options: &[(&str, AmazonS3ConfigKey, &str)]) -> ClientOptions {
    options.iter().fold(ClientOptions::new().with_timeout(REQUEST_LIMIT), |client, (_, key, value)| match key
    {
        AmazonS3ConfigKey::Client(key) => client.with_config(*key, *value),
        _ => client,
    })
}

/// Refuses an endpoint that no request could be sent to.
fn check_endpoint(url: &str, options: &[(&str, AmazonS3ConfigKey, &str)]) -> Result<()> {
    let allowed = options.iter().any(|(_, key, value)| {
        let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
        *key == allow_http && matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
    });
    for (name, key, value) in options {
        if !matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint) {
            continue;
        }
        if value.starts_with("http://") && !allowed {
            return Err(Error::invalid_job(format!(
                "cannot open {url}: {name} begins with http://, so that everybody on the way can read along: give an \
                 https:// address, or set AWS_ALLOW_HTTP=true"
            )));
        }
        if !value.starts_with("http://") && !value.starts_with("https://") {
            return Err(Error::invalid_job(format!(
                "cannot open {url}: {name} does not begin with https:// (or http://)"
            )));
        }
    }
    Ok(())
}

/// What `object_store` found wrong with the options, without what must stay secret.
fn refused(url: &str, options: &[(&str, AmazonS3ConfigKey, &str)], error: &object_store::Error) -> Error {
    let mut text = innermost(error);
    for (_, key, value) in options {
        if !matches!(key, AmazonS3ConfigKey::Client(_) | AmazonS3ConfigKey::Region) {
            text = text.replace(value, "...");
        }
    }
    Error::invalid_job(format!("cannot open {url} with the variables AWS_...: {text}"))
}

#[cfg(test)]
mod tests {
    use types::ErrorKind;

    use super::*;

    fn refusal(vars: &[(&str, &str)]) -> String {
        let vars: Vec<_> =
            vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = clients("s3://b/c", "b", &vars, &Arc::default()).expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidJob);
        error.to_string()
    }

    #[test]
    fn wrong_options_are_named_and_their_values_are_not() {
        for (vars, expected) in [
            (&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")][..], "AWS_ENDPOINT_URL begins with http://"),
            (&[("AWS_ENDPOINT_URL_S3", "localhost")], "AWS_ENDPOINT_URL_S3 does not begin with https://"),
            (&[("AWS_ACCESS_KEY_ID", "hushhush")], "Missing SecretAccessKey"),
            (&[("AWS_SECRET_ACCESS_KEY", "hushhush")], "Missing AccessKeyId"),
            (&[("AWS_UNSIGNED_PAYLOAD", "hushhush")], "boolean"),
        ] {
            let text = refusal(vars);
            assert!(text.contains(expected), "{text}");
            assert!(text.starts_with("cannot open s3://b/c"), "{text}");
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[test]
    fn variables_mean_what_they_mean_elsewhere() {
        let vars = [
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_BUCKET", "other"),
            ("AWS_CONDITIONAL_PUT", "disabled"),
            ("AWS_PROFILE", "p"),
            ("AWS_REGION", ""),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let names: Vec<_> = options(&vars).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["AWS_ACCESS_KEY_ID", "AWS_ALLOW_HTTP"]);
    }
}
