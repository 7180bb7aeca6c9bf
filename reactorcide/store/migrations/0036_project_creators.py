"""Who has created each project."""

from typing import Any


def up(migrator: Any, db: Any) -> None:
    """Add the column; of the projects that there are it is the owner who was added first."""
    db.execute_sql("ALTER TABLE project ADD COLUMN created_by TEXT NOT NULL DEFAULT ''")
    db.execute_sql(
        "UPDATE project SET created_by = COALESCE((SELECT user_id FROM project_member "
        "WHERE project_member.project_id = project.project_id AND role = 'owner' "
        "ORDER BY project_member.rowid LIMIT 1), '')"
    )
