//! Enrolment is on its way: until then the files and the line of `comity org admit` do the same by hand.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Shared;
use crate::control::messages::{
    ConfirmRequest, ControlFault, FaultKind, InviteRequest, JoinRequest, Response,
};
use crate::control::server::Events;
use crate::mesh::IncomingEnrolment;

fn not_here() -> ControlFault {
    ControlFault::new(FaultKind::Failed, "this build cannot enrol over the network yet")
        .next("admit the node by hand: comity org admit NODE")
}

impl Shared {
    pub(super) async fn invite(&self, _: InviteRequest, _: Events) -> Result<Response, ControlFault> {
        Err(not_here())
    }

    pub(super) async fn join(&self, _: JoinRequest, _: Events) -> Result<Response, ControlFault> {
        Err(not_here())
    }

    pub(super) fn confirm(&self, _: &ConfirmRequest) -> Result<Response, ControlFault> {
        Err(not_here())
    }

    pub(super) async fn serve_enrolments(self: Arc<Self>, mut incoming: mpsc::Receiver<IncomingEnrolment>) {
        while let Some(Some(enrolment)) = self.stop.run_until_cancelled(incoming.recv()).await {
            drop(enrolment);
        }
    }
}
