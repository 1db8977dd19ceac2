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
COMMENT ON COLUMN reconcile_work.resource_type IS 'Type of the resource.';
COMMENT ON COLUMN reconcile_work.resource_id IS 'Id of its row.';
COMMENT ON COLUMN reconcile_work.cluster_name IS 'Cluster of the resource.';
COMMENT ON COLUMN reconcile_work.namespace_id IS 'Its namespace; null: of the platform.';
COMMENT ON COLUMN reconcile_work.due_at IS 'When it is to be compared next; for leased work, when the lease ends.';
COMMENT ON COLUMN reconcile_work.attempts IS 'Failed attempts in a row.';
COMMENT ON COLUMN reconcile_work.lease_owner IS 'Server that works on it; null: none.';
COMMENT ON COLUMN reconcile_work.lease_epoch IS
    'Raised by each lease; a worker writes back under the epoch of its lease.';
COMMENT ON COLUMN reconcile_work.leased_until IS 'When the lease ends.';
COMMENT ON COLUMN reconcile_work.last_error IS 'Error of the last attempt.';
COMMENT ON COLUMN reconcile_work.created_at IS 'When the work was first put.';
COMMENT ON COLUMN reconcile_work.updated_at IS 'When the row was last written.';
COMMENT ON COLUMN reconcile_work.applied_objects IS
    'Fingerprint of each object as it was last applied, by kind and name; null: none was noted.';
COMMENT ON COLUMN reconcile_work.going IS 'Whether the resource is being deleted: it yields to new and changed ones.';


CREATE TABLE leases (
    name varchar(100) NOT NULL,
    owner varchar(100),
    epoch bigint NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_leases PRIMARY KEY (name)
);

COMMENT ON TABLE leases IS 'Work that one replica at a time may do: periodic work, observation of a cluster.';
COMMENT ON COLUMN leases.name IS 'Name of the work.';
COMMENT ON COLUMN leases.owner IS 'Server that has the lease; null: none.';
COMMENT ON COLUMN leases.epoch IS 'Raised by each new holder; writes name it.';
COMMENT ON COLUMN leases.expires_at IS 'When the lease ends.';


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
COMMENT ON COLUMN periodic_jobs.name IS 'Name of the job.';
COMMENT ON COLUMN periodic_jobs.failures IS 'In a row, until now.';
COMMENT ON COLUMN periodic_jobs.failing_since IS 'Since when runs fail; null: the last one succeeded.';
COMMENT ON COLUMN periodic_jobs.last_failure_at IS 'When a run last failed.';
COMMENT ON COLUMN periodic_jobs.last_failure IS 'The reason of the last failure, a word.';
COMMENT ON COLUMN periodic_jobs.last_success_at IS 'When a run last succeeded.';
