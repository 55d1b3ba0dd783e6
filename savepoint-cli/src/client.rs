//! The REST client: one request, one answer of `types::rest`, one error.

use std::time::Duration;

use clap::Args;
use env::Env;
use serde::{Serialize, de::DeserializeOwned};
use types::{
    Error, Result,
    rest::{ErrorAnswer, JobList},
};
use ureq::{
    Agent, Timeout,
    http::{Response, StatusCode},
};

use crate::progress::waiting;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer that needs no work of the job may take.
const READ: Duration = Duration::from_secs(10);
/// The greatest length of an answer, in bytes.
const ANSWER_LIMIT: u64 = 16 << 20;

/// Where the job is.
#[derive(Args, Clone, Debug)]
pub(crate) struct Address {
    /// Where the job's REST listens.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    pub(crate) address: String,
}

/// Talks to the process of a job.
pub(crate) struct Client {
    env: Env,
    agent: Agent,
    address: String,
    /// The flag that says where.
    flag: &'static str,
}

impl Client {
    pub(crate) fn new(env: &Env, Address { address }: Address) -> Result<Self> {
        Self::of_flag(env, address, "--address")
    }

    /// The address is the value of this flag.
    pub(crate) fn of_flag(env: &Env, address: String, flag: &'static str) -> Result<Self> {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains('/'));
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
            return Err(Error::invalid_job(format!("{flag} {address} is not HOST:PORT")));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            // The job is here or near: what the environment says about the way to the Internet is of no use.
            .proxy(None);
        Ok(Self { env: env.clone(), agent: config.build().into(), address, flag })
    }

    /// The name of the job that is meant: the one given, or the only one there is.
    pub(crate) async fn job(&self, named: Option<String>) -> Result<String> {
        if let Some(name) = named {
            return Ok(name);
        }
        let mut names = self.names().await?;
        match (names.pop(), names.is_empty()) {
            (Some(name), true) => Ok(name),
            (Some(last), false) => {
                names.push(last);
                Err(Error::invalid_job(format!("give the JOB: there are {}", names.join(", "))))
            }
            (None, _) => Err(Error::invalid_job(format!("there is no job at {}", self.address))),
        }
    }

    /// The names of the jobs that there are.
    pub(crate) async fn names(&self) -> Result<Vec<String>> {
        Ok(self.get::<JobList>("/jobs").await?.jobs.into_iter().map(|job| job.name).collect())
    }

    /// Reads.
    pub(crate) async fn get<T: DeserializeOwned + Send + 'static>(&self, path: &str) -> Result<T> {
        let (agent, url) = (self.agent.clone(), self.url(path));
        let send = move || agent.get(url).config().timeout_global(Some(READ)).build().call();
        self.exchange("waiting for the job", move || read(send()?)).await
    }

    /// Makes the job do something, and waits until it is done; says `what` if that takes long.
    pub(crate) async fn post<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: impl Serialize + Send + 'static,
        what: &str,
    ) -> Result<T> {
        let (agent, url) = (self.agent.clone(), self.url(path));
        self.exchange(what, move || read(agent.post(url).send_json(&body)?)).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        what: &str,
        request: impl FnOnce() -> Result<(StatusCode, String), ureq::Error> + Send + 'static,
    ) -> Result<T> {
        let answered = waiting(&self.env, what, self.env.blocking("request", request)).await?;
        let (status, text) = answered.map_err(|error| self.unreachable(error))?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| self.stranger(&error.to_string()));
        }
        let refused: ErrorAnswer =
            serde_json::from_str(&text).map_err(|_| self.stranger(&format!("it answers {status}")))?;
        Err(refused.into())
    }

    fn unreachable(&self, error: ureq::Error) -> Error {
        // A connection was made: to say that nobody is there would invite a second start.
        if matches!(&error, ureq::Error::Timeout(timeout) if !matches!(timeout, Timeout::Resolve | Timeout::Connect))
        {
            let message = format!(
                "what listens at {} has not answered for {READ:?}: ask again, the job may be busy",
                self.address
            );
            return Error::retryable(message).with_source(error);
        }
        let message = format!(
            "no job answers at {}: start it, or say with {} where its REST listens",
            self.address, self.flag
        );
        Error::unavailable(message).with_source(error)
    }

    fn stranger(&self, why: &str) -> Error {
        Error::unavailable(format!("what listens at {} is not a Tidegate job: {why}", self.address))
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<(StatusCode, String), ureq::Error> {
    let text = response.body_mut().with_config().limit(ANSWER_LIMIT).read_to_string()?;
    Ok((response.status(), text))
}

/// The path of a job, or of something below it.
pub(crate) fn path(job: &str, below: &str) -> String {
    let mut path = "/jobs/".to_owned();
    for byte in job.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => path.push(byte.into()),
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path + below
}

#[cfg(test)]
mod tests {
    use env::sim::Simulation;
    use types::ErrorKind;

    use super::*;

    #[test]
    fn a_job_that_is_busy_is_not_one_that_is_not_there() {
        let sim = Simulation::new(1);
        let client = Client::new(&sim.env(), Address { address: "host:1".to_owned() }).expect("an address");
        let busy = client.unreachable(ureq::Error::Timeout(Timeout::Global));
        assert_eq!(busy.kind(), ErrorKind::Retryable);
        assert!(busy.to_string().starts_with("what listens at host:1 has not answered for 10s"), "{busy}");
        let nobody = client.unreachable(ureq::Error::Timeout(Timeout::Connect));
        assert_eq!(nobody.kind(), ErrorKind::Unavailable);
        assert!(nobody.to_string().starts_with("no job answers at host:1"), "{nobody}");
    }
}
