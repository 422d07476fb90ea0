//! The membership that this node runs under, and another one that is put in its place while it runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, sleep};
use tracing::{error, info};

use super::Shared;
use super::identity::{IdentityError, Member, NodeIdentity};
use crate::org;
use crate::telemetry::Chain;

/// How often the stored membership is looked at: `comity join` may put another one there.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How long a node that is to start again leaves to whoever put the membership there.
const RESTART_WAIT: Duration = Duration::from_secs(1);

impl Shared {
    /// Follows the stored membership until the node stops.
    pub(super) async fn follow_membership(self: Arc<Self>) {
        let mut ticks = interval(LOOK_INTERVAL);
        // Bytes that were found in the file and are of no use: said once, not at every look.
        let mut refused = None;
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.look_at_membership(&mut refused).await {
                error!(error = %Chain(&error), "the stored membership cannot be used");
            }
        }
    }

    /// The membership in use.
    pub(super) fn member(&self) -> Option<Member> {
        self.member.borrow().clone()
    }

    async fn look_at_membership(&self, refused: &mut Option<Arc<[u8]>>) -> Result<(), IdentityError> {
        let Some(stored) = org::load_membership(&self.dir)? else { return Ok(()) };
        let used = self.member().map(|member| member.membership.bytes().clone());
        if Some(stored.bytes()) == used.as_ref() || Some(stored.bytes()) == refused.as_ref() {
            return Ok(());
        }
        *refused = Some(stored.bytes().clone());
        let config = self.config.borrow().clone();
        let fresh = NodeIdentity::read(&self.dir, &config, self.clock.now().wall)?;
        match fresh.member {
            Some(member) if Some(member.membership.bytes()) != used.as_ref() => {
                *refused = None;
                self.take_membership(member).await;
            }
            _ => {}
        }
        Ok(())
    }

    /// Runs under `member` from now on. A node that was in no org, or in another, starts again for it.
    pub(super) async fn take_membership(&self, member: Member) {
        let org = member.membership.org.clone();
        let same_org = self.member().is_some_and(|before| before.membership.org == org);
        let mesh = self.mesh.get().filter(|_| same_org);
        let Some(mesh) = mesh else {
            info!(%org, "there is a membership now: starting again with it");
            // Whoever put it there may have more to write, and an answer to send.
            sleep(RESTART_WAIT).await;
            return self.restart.cancel();
        };
        info!(%org, expires = %member.membership.expires, "the membership was replaced");
        let config = self.config.borrow().clone();
        self.me.send_replace(self.identity.me_as(Some(&member), &config));
        self.member.send_replace(Some(member.clone()));
        mesh.set_membership(member.membership, member.chain).await;
    }
}
