-- Which migrations a database has had. The service applies the missing ones when it starts. By
-- hand, run the files in the order of their numbers with the mariadb or mysql client.
--
-- Rules for every migration: one DDL statement, as it commits by itself, and one that can be
-- repeated, as the service may be stopped between it and its record and as several replicas may
-- apply it at once. It names character set and collation, and only such as MySQL and MariaDB both
-- have. A semicolon at the end of a line ends a statement, also in a comment.
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    INT         NOT NULL PRIMARY KEY,
    applied_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
) ENGINE = InnoDB DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

INSERT IGNORE INTO schema_migrations (version) VALUES (1);
