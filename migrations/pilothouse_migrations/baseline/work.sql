-- reconcile_work is the outbox of the reconcilers: a mutation puts its resource there in its own transaction. See the
-- function lease_work.

CREATE TABLE reconcile_work (
    resource_type varchar(50) NOT NULL,
    resource_id bigint NOT NULL,
    cluster_name varchar(100) NOT NULL,
    namespace_id bigint,
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    lease_owner varchar(100),
    lease_epoch bigint NOT NULL DEFAULT 0,
    leased_until timestamptz,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    applied_objects jsonb,
    going boolean NOT NULL DEFAULT false,
    CONSTRAINT pk_reconcile_work PRIMARY KEY (resource_type, resource_id),
    CONSTRAINT fk_reconcile_work_namespace FOREIGN KEY (namespace_id) REFERENCES namespaces(id) ON DELETE CASCADE,
    CONSTRAINT ck_reconcile_work_attempts CHECK (attempts >= 0),
    CONSTRAINT ck_reconcile_work_lease CHECK ((lease_owner IS NULL) = (leased_until IS NULL))
);

CREATE INDEX idx_reconcile_work_due ON reconcile_work (cluster_name, due_at);
CREATE INDEX idx_reconcile_work_share ON reconcile_work (namespace_id, going, due_at);

COMMENT ON TABLE reconcile_work IS
    'Outbox of the reconcilers: resources whose cluster state may differ from the desired one.';
COMMENT ON COLUMN reconcile_work.lease_epoch IS
    'Raised by each claim; a write back names the epoch it was claimed under.';
COMMENT ON COLUMN reconcile_work.applied_objects IS
    'What the resource consisted of on its cluster when it was applied last: marks by kind and name. Null: not noted.';
COMMENT ON COLUMN reconcile_work.going IS
    'Whether the resource is to be deleted: it gives way to what is new or changed.';


CREATE TABLE leases (
    name varchar(100) NOT NULL,
    owner varchar(100),
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_leases PRIMARY KEY (name)
);

COMMENT ON TABLE leases IS 'Work that one replica at a time may do: periodic work, observation of a cluster.';


CREATE TABLE periodic_jobs (
    name varchar(100) NOT NULL,
    failures bigint NOT NULL DEFAULT 0,
    failing_since timestamptz,
    last_failure_at timestamptz,
    last_failure varchar(100),
    last_success_at timestamptz,
    CONSTRAINT pk_periodic_jobs PRIMARY KEY (name),
    CONSTRAINT ck_periodic_jobs_failures CHECK (failures >= 0 AND (failures = 0) = (failing_since IS NULL))
);

COMMENT ON TABLE periodic_jobs IS 'How the runs of each periodic job ended, whichever server did them.';
COMMENT ON COLUMN periodic_jobs.failures IS 'In a row, until now.';
COMMENT ON COLUMN periodic_jobs.last_failure IS 'The reason of the last failure, a word.';
