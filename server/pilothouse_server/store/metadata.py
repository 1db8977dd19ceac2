"""The one SQLAlchemy MetaData on which every noun declares its tables.

Tables are declared for querying only: the migrations are the schema's source, and a test compares the two.
Constraints and indexes are therefore not repeated here.
"""

from __future__ import annotations

from sqlalchemy import MetaData

METADATA = MetaData(schema="public", naming_convention={"pk": "pk_%(table_name)s"})
