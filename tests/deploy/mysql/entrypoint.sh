#!/bin/bash
# Makes the database and the user that the variables name, with nobody listening on TCP meanwhile, as the official
# entrypoint does; then serves.
set -euo pipefail
data=/var/lib/mysql
common=(--no-defaults "--datadir=$data" --socket=/tmp/socket --pid-file=/tmp/pid --mysqlx=OFF --tmpdir=/tmp
    --secure-file-priv=NULL --innodb-use-native-aio=OFF)

if [ ! -d "$data/mysql" ]; then
    cp -R /opt/mysql/seed/. "$data"
    {
        echo "ALTER USER root@localhost IDENTIFIED BY '$MYSQL_ROOT_PASSWORD';"
        echo "CREATE DATABASE $MYSQL_DATABASE;"
        echo "CREATE USER '$MYSQL_USER'@'%' IDENTIFIED BY '$MYSQL_PASSWORD';"
        echo "GRANT ALL ON $MYSQL_DATABASE.* TO '$MYSQL_USER'@'%';"
    } >/tmp/init.sql
    exec /opt/mysql/bin/mysqld "${common[@]}" --init-file=/tmp/init.sql
fi
exec /opt/mysql/bin/mysqld "${common[@]}"
