"""The audit log as callers read it. `rpc.interceptors.audit` creates its records; `store` writes them."""
