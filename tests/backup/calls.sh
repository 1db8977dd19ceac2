pilothouse restore backups/pilothouse-20261127T080000Z --key-file backup.key --master-keys-to restored.key --admin-url postgresql://postgres@db.example.org/pilothouse_restored
pg_basebackup --dbname postgresql://postgres@db.example.org --pgdata /var/backups/pilothouse/base --checkpoint fast
pilothouse restore backups/pilothouse-20261127T080000Z --dev --key-file backup.key --master-keys-to .pilothouse/master.key
