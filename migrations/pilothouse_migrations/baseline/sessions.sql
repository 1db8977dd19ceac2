-- Tokens and codes are kept as hashes. Five wrong guesses lock an account; login_origins lets devices and addresses
-- pass that lock that logged in before. Its rows come from log-ins that succeed, so nobody fills the table by
-- guessing. It and login_throttles have no foreign key to users: accounts are found by the hash of their name, by the
-- same statements whether they exist or not.
--
-- A person is the pair of issuer and subject; neither an e-mail address nor a name makes one of our users theirs.
-- device_logins keeps what is needed between two polls of RFC 8628, so any server serves the next one.

CREATE TABLE sessions (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id bigint NOT NULL,
    family_id uuid NOT NULL,
    access_token_hash bytea NOT NULL,
    refresh_token_hash bytea NOT NULL,
    access_expires_at timestamptz NOT NULL,
    refresh_expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    rotated_at timestamptz,
    revoked_at timestamptz,
    replaced_by uuid,
    client_ip varchar(45),
    user_agent text,
    method varchar(20) NOT NULL DEFAULT 'password',
    proved_at timestamptz,
    CONSTRAINT pk_sessions PRIMARY KEY (id),
    CONSTRAINT uq_sessions_access_token_hash UNIQUE (access_token_hash),
    CONSTRAINT uq_sessions_refresh_token_hash UNIQUE (refresh_token_hash),
    CONSTRAINT fk_sessions_replaced_by FOREIGN KEY (replaced_by) REFERENCES sessions(id) ON DELETE SET NULL,
    CONSTRAINT fk_sessions_user FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE INDEX idx_sessions_family_id ON sessions (family_id);
CREATE INDEX idx_sessions_refresh_expires_at ON sessions (refresh_expires_at);
CREATE INDEX idx_sessions_replaced_by ON sessions (replaced_by);
CREATE INDEX idx_sessions_user_id ON sessions (user_id);

COMMENT ON TABLE sessions IS 'One row per issued pair of tokens; tokens are kept as SHA-256 of 256 random bits.';
COMMENT ON COLUMN sessions.id IS 'Id of the session.';
COMMENT ON COLUMN sessions.user_id IS 'User who logged in.';
COMMENT ON COLUMN sessions.family_id IS
    'All pairs that descend from one login; a replayed refresh token ends the family.';
COMMENT ON COLUMN sessions.access_token_hash IS 'SHA-256 of the access token.';
COMMENT ON COLUMN sessions.refresh_token_hash IS 'SHA-256 of the refresh token.';
COMMENT ON COLUMN sessions.access_expires_at IS 'When the access token expires.';
COMMENT ON COLUMN sessions.refresh_expires_at IS 'When the refresh token expires.';
COMMENT ON COLUMN sessions.created_at IS 'When the row was created.';
COMMENT ON COLUMN sessions.last_used_at IS 'When it was last used; written at intervals.';
COMMENT ON COLUMN sessions.rotated_at IS 'When its refresh token was exchanged.';
COMMENT ON COLUMN sessions.revoked_at IS 'When it was revoked.';
COMMENT ON COLUMN sessions.replaced_by IS
    'The pair that the refresh token was exchanged for; a refresh token is used once.';
COMMENT ON COLUMN sessions.client_ip IS 'Address it was issued to.';
COMMENT ON COLUMN sessions.user_agent IS 'user-agent header it was issued to.';
COMMENT ON COLUMN sessions.method IS 'How the user or program proved its identity.';
COMMENT ON COLUMN sessions.proved_at IS
    'When the user last proved identity by password, code or issuer; a refresh keeps it. Null: unknown.';


CREATE TABLE login_throttles (
    account_hash bytea NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_login_throttles PRIMARY KEY (account_hash),
    CONSTRAINT ck_login_throttles_failures CHECK (failures >= 0)
);

CREATE INDEX idx_login_throttles_updated_at ON login_throttles (updated_at);

COMMENT ON TABLE login_throttles IS
    'Failed logins by hash of the normalised name, so that unknown accounts are throttled alike.';
COMMENT ON COLUMN login_throttles.account_hash IS 'Hash of the normalised user name.';
COMMENT ON COLUMN login_throttles.failures IS 'Failed log-ins since the last success.';
COMMENT ON COLUMN login_throttles.locked_until IS 'Until when log-ins are refused; null: they are not.';
COMMENT ON COLUMN login_throttles.updated_at IS 'When the row was last written.';


CREATE TABLE login_origins (
    account_hash bytea NOT NULL,
    origin_hash bytea NOT NULL,
    failures integer NOT NULL DEFAULT 0,
    logins integer NOT NULL DEFAULT 1,
    password_changed_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_login_origins PRIMARY KEY (account_hash, origin_hash),
    CONSTRAINT ck_login_origins_failures CHECK (failures >= 0),
    CONSTRAINT ck_login_origins_logins CHECK (logins >= 1)
);

CREATE INDEX idx_login_origins_updated_at ON login_origins (updated_at);

COMMENT ON TABLE login_origins IS
    'Devices and addresses that accounts have logged in from, and the guesses that failed there since.';
COMMENT ON COLUMN login_origins.account_hash IS 'Hash of the normalised user name, as in login_throttles.';
COMMENT ON COLUMN login_origins.origin_hash IS 'Hash of a device, or keyed hash of an address.';
COMMENT ON COLUMN login_origins.failures IS 'Failed log-ins from there since the last success.';
COMMENT ON COLUMN login_origins.logins IS 'Successful log-ins from there.';
COMMENT ON COLUMN login_origins.password_changed_at IS 'password_changed_at of the user at the last log-in from there.';
COMMENT ON COLUMN login_origins.updated_at IS 'When the row was last written.';


CREATE TABLE login_challenges (
    challenge_hash bytea NOT NULL,
    user_id bigint NOT NULL,
    origin_hash bytea NOT NULL,
    password_changed_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_login_challenges PRIMARY KEY (challenge_hash),
    CONSTRAINT fk_login_challenges_user FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE INDEX idx_login_challenges_expires_at ON login_challenges (expires_at);
CREATE INDEX idx_login_challenges_user_id ON login_challenges (user_id);

COMMENT ON TABLE login_challenges IS
    'What right passwords were answered with where a code or a new password is to be shown, too; used once.';
COMMENT ON COLUMN login_challenges.challenge_hash IS 'SHA-256 of the challenge.';
COMMENT ON COLUMN login_challenges.user_id IS 'User whose password was right.';
COMMENT ON COLUMN login_challenges.origin_hash IS 'Keyed hash of the address and of the device it was given to.';
COMMENT ON COLUMN login_challenges.password_changed_at IS
    'password_changed_at of the user at that time; another one ends the challenge.';
COMMENT ON COLUMN login_challenges.created_at IS 'When the row was created.';
COMMENT ON COLUMN login_challenges.expires_at IS 'When the challenge stops working.';


CREATE TABLE recovery_codes (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    user_id bigint NOT NULL,
    code_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz,
    CONSTRAINT pk_recovery_codes PRIMARY KEY (id),
    CONSTRAINT uq_recovery_codes_code UNIQUE (user_id, code_hash),
    CONSTRAINT fk_recovery_codes_user FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

COMMENT ON TABLE recovery_codes IS
    'Codes that let a user in once each without the authenticator, as SHA-256 of 80 random bits.';
COMMENT ON COLUMN recovery_codes.id IS 'Key of the row inside the database.';
COMMENT ON COLUMN recovery_codes.user_id IS 'The user it belongs to.';
COMMENT ON COLUMN recovery_codes.code_hash IS 'SHA-256 of the code.';
COMMENT ON COLUMN recovery_codes.created_at IS 'When the row was created.';
COMMENT ON COLUMN recovery_codes.used_at IS 'When it was used; null: it is left.';


CREATE TABLE federated_identities (
    id bigint GENERATED BY DEFAULT AS IDENTITY,
    user_id bigint NOT NULL,
    issuer varchar(500) NOT NULL,
    subject varchar(255) NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    confirmed_until timestamptz NOT NULL,
    CONSTRAINT pk_federated_identities PRIMARY KEY (id),
    CONSTRAINT uq_federated_identities_subject UNIQUE (issuer, subject),
    CONSTRAINT fk_federated_identities_user FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE INDEX idx_federated_identities_confirmed_until ON federated_identities (confirmed_until);
CREATE INDEX idx_federated_identities_user_id ON federated_identities (user_id);

COMMENT ON TABLE federated_identities IS
    'People and programs that issuers vouch for, and the users that they are here.';
COMMENT ON COLUMN federated_identities.id IS 'Key of the row inside the database.';
COMMENT ON COLUMN federated_identities.user_id IS 'The user that it is here.';
COMMENT ON COLUMN federated_identities.issuer IS 'The issuer''s address, as its tokens have it.';
COMMENT ON COLUMN federated_identities.subject IS 'Subject at the issuer.';
COMMENT ON COLUMN federated_identities.created_at IS 'When the row was created.';
COMMENT ON COLUMN federated_identities.confirmed_at IS 'When the issuer was last asked, and vouched.';
COMMENT ON COLUMN federated_identities.confirmed_until IS
    'When the grants that its rules give end, unless it is asked again.';


CREATE TABLE oidc_logins (
    state_hash bytea NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_oidc_logins PRIMARY KEY (state_hash)
);

CREATE INDEX idx_oidc_logins_expires_at ON oidc_logins (expires_at);

COMMENT ON TABLE oidc_logins IS
    'Log-ins at issuers that were completed, until they would have expired: each works once.';
COMMENT ON COLUMN oidc_logins.state_hash IS 'SHA-256 of the log-in''s state.';
COMMENT ON COLUMN oidc_logins.completed_at IS 'When it was completed.';
COMMENT ON COLUMN oidc_logins.expires_at IS 'When it would have expired.';


CREATE TABLE oidc_sessions (
    family_id uuid NOT NULL,
    identity_id bigint NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    asking_until timestamptz,
    CONSTRAINT pk_oidc_sessions PRIMARY KEY (family_id),
    CONSTRAINT fk_oidc_sessions_identity
        FOREIGN KEY (identity_id) REFERENCES federated_identities(id) ON DELETE CASCADE
);

CREATE INDEX idx_oidc_sessions_identity_id ON oidc_sessions (identity_id);

COMMENT ON TABLE oidc_sessions IS
    'Sessions that an issuer is asked about when they are renewed; its refresh token is a token of user_secrets.';
COMMENT ON COLUMN oidc_sessions.family_id IS 'The session, by its family.';
COMMENT ON COLUMN oidc_sessions.identity_id IS 'The identity that logged in.';
COMMENT ON COLUMN oidc_sessions.confirmed_at IS 'When the issuer was last asked, and vouched.';
COMMENT ON COLUMN oidc_sessions.asking_until IS
    'Until when nobody else asks: the issuer''s refresh token may work once.';


CREATE TABLE device_logins (
    token_hash bytea NOT NULL,
    issuer varchar(40) NOT NULL,
    sealed_code bytea NOT NULL,
    address_hash bytea NOT NULL,
    interval_seconds integer NOT NULL,
    next_poll_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT pk_device_logins PRIMARY KEY (token_hash),
    CONSTRAINT ck_device_logins_interval_seconds CHECK (interval_seconds BETWEEN 1 AND 3600),
    CONSTRAINT ck_device_logins_token_hash CHECK (octet_length(token_hash) = 32)
);

CREATE INDEX idx_device_logins_address_hash ON device_logins (address_hash, expires_at);
CREATE INDEX idx_device_logins_expires_at ON device_logins (expires_at);

COMMENT ON TABLE device_logins IS 'Log-ins of devices that wait for a person to agree at the issuer.';
COMMENT ON COLUMN device_logins.token_hash IS 'SHA-256 of the token that the device asks with.';
COMMENT ON COLUMN device_logins.issuer IS 'Name of the issuer in the settings.';
COMMENT ON COLUMN device_logins.sealed_code IS 'The code of the issuer, under a key that only that token gives.';
COMMENT ON COLUMN device_logins.address_hash IS 'Keyed hash of the address that began it; each address may have a few.';
COMMENT ON COLUMN device_logins.interval_seconds IS 'Least time between two polls, set by the issuer.';
COMMENT ON COLUMN device_logins.next_poll_at IS 'Time of the next poll of the issuer.';
COMMENT ON COLUMN device_logins.expires_at IS 'When the device''s code expires.';
