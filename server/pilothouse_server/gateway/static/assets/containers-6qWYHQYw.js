import{d as r}from"./container_pb-CTGgIktQ.js";import{c as t}from"./containers-Cn2GGoNf.js";import"./index-BlizQIps.js";import"./resource_pb-DsNRGbQR.js";const c={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{c as editableContainer};
