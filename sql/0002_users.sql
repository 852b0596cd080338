-- The users. Times are in UTC.
--
-- Addresses are compared by email_key, the lower case of their NFC form in UTF-8, computed by the
-- service: no collation does the same everywhere. Lower case and NFC may each lengthen an address,
-- which has at most 254 bytes.
CREATE TABLE IF NOT EXISTS users (
    id         BIGINT         NOT NULL AUTO_INCREMENT PRIMARY KEY,
    name       VARCHAR(200)   NOT NULL,
    email      VARCHAR(254)   NOT NULL,
    email_key  VARBINARY(768) NOT NULL,
    active     TINYINT        NOT NULL,
    created_at DATETIME(6)    NOT NULL,
    updated_at DATETIME(6)    NOT NULL,
    UNIQUE KEY users_email_key (email_key),
    KEY users_active (active, id)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT IGNORE INTO schema_migrations (version) VALUES (2);
