"""Checksums of migrations and of functions' texts. `make schema` writes this file.

A server compares them with the database's records at its start: rendering the migrations would take Alembic.
"""

from __future__ import annotations

from typing import Final

# The newest migration of the last release. `make schema` leaves its texts and older ones alone.
RELEASED: Final = "0101"
# The checksum of each migration, oldest first.
CHECKSUMS: Final = {
    "0101": "955127752681aae16c0b8bb24773cb507cf2d533e5983da4112ce2fc4d8de32a",
    "0102": "da01aa422b54d909235eebd149a22bd2c4be2330008dca437a2cd24d052f20cd",
    "0103": "e2029e0b192a20f4c826e5b1996de35053f11c04caf9b069878f07d55c214baa",
    "0104": "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "0105": "8ea0ac0f128ae87707e02155a9cd50e1e81dca7621296c17be9a349270d3b43c",
    "0106": "d9541e99864d775b88b182eefc2ffe69bb8c1664a7cc35f6601073b9de382dd5",
    "0107": "854cedac157c854278bb707c9d0bdbe9925d464b149ca3964bc515a495b8ae4a",
}
# The checksum of each function's present text, and the migration that gave it.
FUNCTIONS: Final[dict[str, tuple[str, str]]] = {
    "admit_container": ("cd57de44b185f5739b561b9ee6a194e09580b532cc1f8909187842276596b40c", "0106"),
    "admit_container_change": ("9632448ded45684a0c99ef4f745a8fadfd0a51bece1465c56d0a4c6ad61b9fbf", "0101"),
    "allowed_external_sources": ("fec3664d78c5a4853662853c374ea967684fcf5bee26cc69c9344b0e003ddacd", "0107"),
    "allowed_service_types": ("5b7e04e0fba14cdab5980dcd060ee66ee50c78d1f3a61a972503e4cb3a28c8f4", "0104"),
    "app_known_reach": ("346a002d6eec5b688719ac7a04131d489eda934ebe4d9a0442bae5873ae2596a", "0101"),
    "app_namespace_ids": ("c0abfb4ca7801ca5663b058a0d52e14988e138f8b797d6b051d6da9f26808092", "0101"),
    "app_password_hash": ("7b453806d5ffe986cf0a4e3e8c358f459cfc92989519b2f57713672117271dbf", "0101"),
    "app_peer_ids": ("823897a04a71f45574cb476dddd5782bdca3d63f50130b1b69156ec7ebc17cee", "0101"),
    "app_reach": ("eb2a6f4dc747cfffdc8d0311bedf9dd7436da0804e64316963321a83f3caa3d3", "0101"),
    "app_reach_in": ("e23fc03d32de1fab501fcc0986fe7802034ec83eb05e24325f5b57df6fb762cc", "0101"),
    "app_sees_all": ("c2c7a029faadd1e0ec3999da5ec2fe98529d6b407ae8f80a76b5cd7cbd34fe9e", "0101"),
    "app_user_id": ("d68da6321ee5d47651b2c8c48515308e44c68805a521aab85652961f8d52b204", "0101"),
    "begin_new_history": ("ba33cf5703f237809c14fba431673e0e0e4b301b7779bfc2fbd7a15366ab0806", "0101"),
    "begin_request": ("3bc4758baf8a791f5d59fb9064a3eb877df3002a4ee79ee9a8b5f380d075d0ef", "0101"),
    "change_container": ("c22d916281127145cb50857b5a13ed2bd26933bfcb5299310b863bbdd026eccd", "0101"),
    "check_appended_changes": ("e825151448c1ddef14d929504fb5716a6a33e9b904795095288532406c2a0c30", "0101"),
    "count_container_delete": ("2ac8a8bc91c6e0e816fcb04b89bd2b67b919b0c009d75832dde981fa238cc6e8", "0101"),
    "count_container_insert": ("5f2e66a26430c79e62cb6939bf6e0f427531cd4caef67ed0f659f497603a6cd3", "0101"),
    "count_container_update": ("ef47d436b7fe4a8026ea91343b768e4ac32be8519d6419c166bf0cf2a1025939", "0101"),
    "create_container": ("9913a07b0841c361092d42ccf7667331da2fa996fbb8473db805f1c26c9ebf99", "0101"),
    "create_daily_partitions": ("b2548219649a9d0151afb64bd980b8b2274513899915c37f642d8b20abdc758f", "0101"),
    "create_monthly_partitions": ("011fdc89a1341975be0f29f310b68f8a3f4c9f34ee6898bc2a4911111853f516", "0101"),
    "create_partition": ("5af8f066d514fa1c82689ceb98c78c1daf22fe9b31743bae88e5cdc7b9ccdc91", "0101"),
    "create_revision_partitions": (
        "2e82125970d7c5ab8fdf982f5a7048081090725e0c426fa27d45be299daacd75",
        "0101",
    ),
    "current_history": ("5c5206f76505bcb42032714cfdd445325ed8288ddd59b3cca3c35c58f769e92f", "0101"),
    "detached_partitions": ("239ee63700f6f2102065aa74a052601a3ab90c4a323b9a25146735e8bd202bf0", "0101"),
    "drop_old_partitions": ("43beb82c45121d492e1bb0eac1af01a8b6d9253adf7db886b5ad0ccabba3137c", "0101"),
    "event_mark": ("6522514ab49e8bd7f01d2ec604a76adb473da038d1199084ec22ab805f2ce004", "0101"),
    "fold_quota_changes": ("701de6a8bacf9597ebe1337db937eb4cf256a3bf2fea79a3885ecbedfd04f135", "0101"),
    "forget_rendered_messages": ("d9ba6e72ebcd06dd31c0f2f370a6096286b284b3f6372a21ba00d3d4b90fda50", "0101"),
    "keep_quota_counter": ("e0217d213ef17809e0a24bf75236695c00aa0f3ecd60c36a60123787d2ba81ed", "0101"),
    "keep_rendered_message": ("714a13e249f4c131419ee40ce176c786f030431d50e35f28617b3a0c4809775a", "0101"),
    "keep_rendered_messages": ("4aaf59052dd6c3236d90b04e4694b93ba9c429a70b0569682f160252ed9144b6", "0101"),
    "lease_work": ("cc592ee1fc5cdbdd7a72f14484b5f6e8a004bda60c7791906bb31ad86e42bf30", "0101"),
    "lock_facts": ("45ab5961040da82fbeee1467a2a4ab4e88a15f0dc127687ec962db105b5c0cb2", "0106"),
    "mark_usage_days": ("5aa0310018e869838de789dd7cd1c0927d63b995d06c450b6d7e7b1e077c62c6", "0101"),
    "note_given_up_grant": ("ec1dd162609dbc6f510aab951c7ece072866bd496aa774be33ef9117d0f5e1c5", "0101"),
    "number_pending": ("e16ef4af45d6a118a0413de6c60f621ca636ec95d9eb41dc12bed7c7a90bd31f", "0101"),
    "number_visible": ("936b1609df35143c6a3daad48310de9a86484be95bbe57663d92568c935c394a", "0101"),
    "old_partitions": ("5a6109a34089d29d847d8fe500fb7a9335841fa1f58a7f15b09ae9bc7b0e1fd0", "0101"),
    "partition_bounds": ("ef4d0a8137809fc1314f0d4beabc11c1b65edc3ba4ec15a17721097a9c8014f0", "0101"),
    "pending_event_ids": ("91fd9b627a3dbdea2913bfbee4bba2fda92ae63a01d5fd50575d777a359d3142", "0101"),
    "put_changes": ("6ccbeaacef639af55a00ab8801f36eca26ced2897fc849cc0e4ddb9433abbc01", "0101"),
    "raise_floor": ("697dd0745bca058aaa1c9e72cecb1e704342fe30198dfa0883708f52f9018891", "0101"),
    "raise_row_version": ("94f6ea39333db6c4a1ebe4ce583a77cc322a1fe8e86e8984e8c6a9828e0bef72", "0101"),
    "reachable_container_summary": (
        "e38f8c5b941dda34bb9b903d5b72462c69c007cff0c06387ba740b729f71d7d1",
        "0101",
    ),
    "read_config_map": ("83cd1095e46dd4637faf3b394573444120eef8dcacacc9583ed2251102b412e2", "0101"),
    "read_container": ("74939599661fc6b9a9e86de19ba6b740c8b0dc19fb1dcc88f28dc9e6cfa49110", "0101"),
    "read_namespace": ("f2992b485d52f7bb9f6327eb54fce75836c6e74c390f4d599e9e41f5e031051a", "0101"),
    "read_secret": ("f23e6ed5e1ce2e2ed8b0cc4c7a4c6ec5d7620397bcb566e41a1fc85200626560", "0101"),
    "read_service": ("73052bc319e4ff8739b5d473f28d6688dc1d438f4651036983d982e3b437d3f5", "0103"),
    "read_volume": ("de8acd5a04a361aabaf44a41b1dffc4ba0723f53475e9331b4d9e70892f6e8b9", "0101"),
    "record_mark": ("fecd2eb19e4014abbb698c73d4e484ee4d44fd5fb14d0718a99018194160f48f", "0101"),
    "refresh_container_summary": ("6137cefa89d6de1daae186f74a9ba57bf3247e36d97eb7c30a413166073d834f", "0101"),
    "refuse_outdated": ("1c0318fd4b937bb1e881d60d7a8d1f4ad0023e309f90f7d140ca4a5a39735cc5", "0101"),
    "register_image": ("4ee2fd77dfae137b87f5594ceb65b304610305968d01eb854704ed8aa775401f", "0101"),
    "release_work": ("3e89c8d181134de43bd9a02e35694a38dbfafb7b0857ab5e578f1e109ae2e1ce", "0101"),
    "sequence_changes": ("505a23548e26fa6cb405b7ff1b291e5b91844a3112f743aba77594c9296b5643", "0101"),
    "set_aside": ("454ac92387d74ecaca663805e54d1a9401e5c8f5fcb992354592f296f88c8253", "0101"),
    "update_container": ("b2c1f842b1faf1d3b67cdf022d8609d2a495008619f0a20b9b033a6dc9a9b69b", "0101"),
    "usage_rolled_until": ("9417726ddf2d283e63d5501c652280007c41f6874e0cf6554fa95e493f9fab7c", "0101"),
    "volume_definition": ("ca68ab2afa4ea2a2107528437453abcfe6c8175eb75ba8c7abee802ff5ec390d", "0107"),
    "wake_services": ("6e07520b4b926bfc04b71aab2af1a8b12632732f91792981a41565d787544ffa", "0103"),
    "work_is_due": ("1f469a0a98dc2ec6dd5d8ed44ed9ffbe556926489576291c7a7f64acbcead49a", "0101"),
    "write_applied": ("fa77d61121802c34281f1be6914c267d948ce3e785dd1ddd34ca3c5cb4ce3dea", "0101"),
    "write_container": ("c98c565017064a47761194a064f7a9e74b185c2990cda7708b5f6f62029a9508", "0101"),
    "write_container_parts": ("bfdc1f5a315bc64aa844d0ebc8eab30604c500b958b77d9b9dddadb8bdef407e", "0107"),
    "write_observed": ("9e30aaaf535ce9f9c9486b0174f1d97869e25acf3b943d29f5a690ca0c40951d", "0101"),
}
