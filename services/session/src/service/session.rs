//! `SessionService`: the public API for backends and operators.

use super::{Services, check, refused, status};
use crate::store::{Filter, Page, Refusal};
use crate::username::Username;
use plaza_proto::code::Code;
use plaza_proto::session as pb;
use plaza_proto::session::session_service_server::SessionService;
use prost::Message;
use tonic::{Request, Response, Status};

/// Bytes of items in one page: below the 64 KiB of a gRPC message, whatever the page size.
const PAGE_BYTES: usize = 48 * 1024;

#[tonic::async_trait]
impl SessionService for Services {
    async fn get_session(&self, request: Request<pb::GetSessionRequest>) -> Result<Response<pb::Session>, Status> {
        self.answer("GetSession", self.session(&request.into_inner().session_id).await)
    }

    async fn set_username(&self, request: Request<pb::SetUsernameRequest>) -> Result<Response<pb::Session>, Status> {
        self.answer("SetUsername", self.set_name(request.into_inner()).await)
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        self.answer("ListSessions", self.sessions(request.into_inner()).await)
    }

    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        self.answer("ListMembers", self.members(request.into_inner()).await)
    }

    async fn count_members(
        &self,
        request: Request<pb::CountMembersRequest>,
    ) -> Result<Response<pb::CountMembersResponse>, Status> {
        self.answer("CountMembers", self.count(&request.into_inner().room).await)
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Result<Response<pb::CloseSessionResponse>, Status> {
        self.answer("CloseSession", self.kick(request.into_inner()).await)
    }
}

fn checked<T>(result: Result<T, Refusal>) -> Result<T, Status> {
    result.map_err(|refusal| refused(&refusal))
}

impl Services {
    async fn session(&self, id: &str) -> Result<pb::Session, Status> {
        checked(check::session_id(id))?;
        self.store.get(id).await.map_err(|error| status(&error))
    }

    async fn set_name(&self, request: pb::SetUsernameRequest) -> Result<pb::Session, Status> {
        checked(check::session_id(&request.session_id))?;
        let name = checked(self.name(&request.username))?;
        let changed = self.store.set_username(&request.session_id, name).await;
        let (session, command) = changed.map_err(|error| status(&error))?;
        if let Some(command) = command {
            self.control.send(command);
        }
        Ok(session)
    }

    async fn sessions(&self, request: pb::ListSessionsRequest) -> Result<pb::ListSessionsResponse, Status> {
        let limit = checked(check::page_size(request.page_size, 100))?;
        checked(check::page_token(&request.page_token))?;
        if !request.edge.is_empty() {
            checked(check::incarnation(&request.edge))?;
        }
        let canonical = if request.username.is_empty() {
            String::new()
        } else {
            let name = Username::parse(&request.username).map_err(|error| Code::BadUsername.status(error))?;
            name.canonical().to_owned()
        };
        let filter = Filter { canonical, edge: request.edge };
        let page = self.store.list(filter, &request.page_token, limit).await.map_err(|error| status(&error))?;
        let page = fit(page, |session| &session.session_id);
        Ok(pb::ListSessionsResponse { sessions: page.items, next_page_token: page.next.unwrap_or_default() })
    }

    async fn members(&self, request: pb::ListMembersRequest) -> Result<pb::ListMembersResponse, Status> {
        let room = checked(check::room(&request.room))?;
        let limit = checked(check::page_size(request.page_size, 200))?;
        checked(check::page_token(&request.page_token))?;
        let found = self.store.members(&room, &request.page_token, limit).await;
        let (page, count) = found.map_err(|error| status(&error))?;
        let page = fit(page, |member| &member.user_id);
        Ok(pb::ListMembersResponse { members: page.items, next_page_token: page.next.unwrap_or_default(), count })
    }

    async fn count(&self, room: &str) -> Result<pb::CountMembersResponse, Status> {
        let room = checked(check::room(room))?;
        let count = self.store.count(&room).await.map_err(|error| status(&error))?;
        Ok(pb::CountMembersResponse { count })
    }

    async fn kick(&self, request: pb::CloseSessionRequest) -> Result<pb::CloseSessionResponse, Status> {
        checked(check::session_id(&request.session_id))?;
        checked(check::reason(&request.reason))?;
        let closed = self.store.close(&request.session_id, &request.reason).await;
        if let Some(command) = closed.map_err(|error| status(&error))? {
            self.control.send(command);
        }
        Ok(pb::CloseSessionResponse {})
    }
}

/// Cuts a page where its bytes would not fit into one message; the rest is the next page.
fn fit<T: Message>(mut page: Page<T>, id: impl Fn(&T) -> &str) -> Page<T> {
    let mut bytes = 0;
    let kept = page.items.iter().take_while(|item| {
        bytes += item.encoded_len() + 4;
        bytes <= PAGE_BYTES
    });
    let kept = kept.count().max(1);
    if kept < page.items.len() {
        page.items.truncate(kept);
        page.next = page.items.last().map(|last| id(last).to_owned());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_before_it_outgrows_a_message() {
        let items: Vec<_> =
            (0..500).map(|i| pb::Member { user_id: format!("{i:0>128}"), username: "名".repeat(32) }).collect();
        let page = fit(Page { items, next: None }, |member| &member.user_id);
        let bytes: usize = page.items.iter().map(Message::encoded_len).sum();
        assert!(bytes < 60_000, "{bytes}");
        assert_eq!(page.next.as_deref(), page.items.last().map(|last| last.user_id.as_str()));
        assert!(page.next.is_some());
    }
}
