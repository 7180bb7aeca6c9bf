"""The tables. Nothing outside this package sees a row: queries answer with dataclasses.

The models belong to no database; each query is executed on the one it is given, so that two
services can live in one process. Times are Unix milliseconds. A change here needs a migration.
"""

from reactorcide.store.models.accounts import (
    AuditRow,
    IdempotencyRow,
    InvitationRow,
    SessionRow,
    TokenRow,
    UserRow,
)
from reactorcide.store.models.deliveries import DeliveryRow
from reactorcide.store.models.jobs import AttemptRow, JobCountRow, JobEventRow, JobNameCountRow, JobRow
from reactorcide.store.models.logs import LogFileRow, LogPieceRow
from reactorcide.store.models.outbox import CommitStatusRow, OutboxLaneRow
from reactorcide.store.models.peers import BadTokenRow, PeerRow, TurnRow
from reactorcide.store.models.projects import (
    ApprovalRow,
    NamedSecretRow,
    OccurrenceRow,
    ProjectCredentialRow,
    ProjectMemberRow,
    ProjectRow,
    ScheduleRow,
    SecretUseRow,
)
from reactorcide.store.models.runs import CacheRow, NodeRow, RunRow
from reactorcide.store.models.service import InstanceRow, PulledImageRow, SourceOwnerRow, SourceRow
from reactorcide.store.models.webhooks import (
    FailingWorkflowRow,
    WebhookCursorRow,
    WebhookMessageRow,
    WebhookRow,
)
from reactorcide.store.models.workers import WorkerRow

ALL_MODELS = (
    InstanceRow,
    UserRow,
    TokenRow,
    InvitationRow,
    SessionRow,
    JobRow,
    AttemptRow,
    WorkerRow,
    JobCountRow,
    JobNameCountRow,
    JobEventRow,
    RunRow,
    NodeRow,
    ProjectRow,
    ProjectMemberRow,
    ProjectCredentialRow,
    ApprovalRow,
    DeliveryRow,
    NamedSecretRow,
    SecretUseRow,
    ScheduleRow,
    OccurrenceRow,
    SourceRow,
    SourceOwnerRow,
    CacheRow,
    CommitStatusRow,
    OutboxLaneRow,
    WebhookRow,
    WebhookMessageRow,
    WebhookCursorRow,
    FailingWorkflowRow,
    PulledImageRow,
    LogFileRow,
    LogPieceRow,
    PeerRow,
    TurnRow,
    BadTokenRow,
    IdempotencyRow,
    AuditRow,
)
