import{f as r}from"./sources-CwOqNpU3.js";import{c as t}from"./containers-BXJrOO-1.js";import"./index-D8PlvcKW.js";import"./resource_pb-ws0aZQbq.js";import"./namespace_pb-BLe4B0Vc.js";import"./live.svelte-DEqe8Ub6.js";import"./watch_pb-CxWioDzZ.js";const d={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{d as editableContainer};
