"""The audit log as callers read it; it is written by the kernel (`rpc.interceptors.audit`,
`store.audit_chain`).
"""
