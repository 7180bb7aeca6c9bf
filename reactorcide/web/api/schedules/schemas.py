"""The schemas of schedules."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from reactorcide.domain.errors import InvalidInput
from reactorcide.domain.schedules import MAX_CRON_CHARS, MAX_NAME_CHARS, MAX_TIMEZONE_CHARS, NAME, WhenRunning
from reactorcide.domain.variables import MAX_VALUE_BYTES
from reactorcide.web.api.projects.schemas import ProjectPath
from reactorcide.web.api.schemas import NO_NUL, Body, Id, Schema, Time

_Name = Annotated[str, Field(max_length=MAX_NAME_CHARS, json_schema_extra={"pattern": f"^{NAME}$"})]
_Cron = Annotated[
    str,
    Field(
        max_length=MAX_CRON_CHARS,
        description="Minute, hour, day of the month, month, day of the week, like `30 2 * * 1-5`; or "
        "`@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. With a day of the month "
        "and one of the week it is due on both.",
    ),
]
_Timezone = Annotated[
    str,
    Field(
        max_length=MAX_TIMEZONE_CHARS,
        description="Of the tz database, like `Europe/Berlin`. A time that does not exist there is due at "
        "the next one that does, and one that comes twice at the first.",
    ),
]
_Text = Annotated[str, StringConstraints(max_length=255, pattern=NO_NUL)]
_Branch = Annotated[_Text, Field(description="Empty: the repository's default branch.")]
_Workflow = Annotated[
    _Text, Field(description="Its id or file. Empty: every workflow with the event `schedule`.")
]
_Vars = Annotated[
    dict[str, Annotated[str, StringConstraints(max_length=MAX_VALUE_BYTES)]],
    Field(max_length=1000, description="Values that override the file's `vars`; with `workflow`."),
]
_WhenRunning = Annotated[
    Literal["skip", "queue"],
    Field(
        description="What happens at a due time while a run of the schedule is unfinished. `skip`: nothing; "
        "`queue`: the next run starts after that one, of several due times only one."
    ),
]


class ScheduleRequest(Body):
    """A schedule to create."""

    name: _Name
    cron: _Cron
    timezone: _Timezone = "UTC"
    branch: _Branch = ""
    workflow: _Workflow = ""
    vars: _Vars = Field(default_factory=dict)
    enabled: bool = True
    when_running: _WhenRunning = "skip"


_CHANGES = ("name", "cron", "timezone", "branch", "workflow", "vars", "enabled", "when_running")


class ScheduleChange(Body):
    """Changes to a schedule; at least one field."""

    model_config = ConfigDict(
        json_schema_extra={
            "minProperties": 1,
            "not": {"properties": {name: {"type": "null"} for name in _CHANGES}},
        }
    )

    name: _Name | None = None
    cron: _Cron | None = None
    timezone: _Timezone | None = None
    branch: _Branch | None = None
    workflow: _Workflow | None = None
    vars: _Vars | None = None
    enabled: bool | None = None
    when_running: _WhenRunning | None = None

    @model_validator(mode="after")
    def _check(self) -> "ScheduleChange":
        if not self.model_fields_set:
            raise InvalidInput(f"nothing to change: give one of {', '.join(_CHANGES)}")
        return self


class OccurrenceResponse(Schema):
    """The result of a due time."""

    due_at: Time
    at: Time = Field(description="When that was decided.")
    outcome: str
    run_ids: list[Id]


class ScheduleListItem(Schema):
    """A schedule in a list."""

    schedule_id: Id
    project_id: Id
    name: str
    cron: str
    timezone: str
    branch: str | None = Field(description="`null`: the repository's default branch.")
    workflow: str | None = Field(description="`null`: every workflow that names the event `schedule`.")
    vars: dict[str, str]
    enabled: bool
    when_running: WhenRunning
    next_due_at: list[Time] = Field(
        max_length=5, description="In a list only the first one; empty if it is disabled."
    )
    waiting: str | None = Field(description="What a due run waits for, like `#12 is not over`.")
    created_at: Time
    updated_at: Time


class ScheduleResponse(ScheduleListItem):
    """A schedule with the results of its last due times."""

    occurrences: list[OccurrenceResponse] = Field(description="At most 20, the newest first.")


class ScheduleListResponse(Schema):
    """Schedules by name."""

    schedules: list[ScheduleListItem]


class SchedulePath(ProjectPath):
    """The ids of a project and of one of its schedules, in the path."""

    schedule_id: Id
