"""The audit log as callers read it. `rpc.interceptors.audit` makes its records; `store` writes them."""
