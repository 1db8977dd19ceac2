import{f as r}from"./sources-vOfJDPAb.js";import{c as t}from"./containers-DpMrTZ5V.js";import"./index-CnUYotAr.js";import"./resource_pb-B1QNa8J0.js";import"./namespace_pb-1gWTN7g3.js";import"./live.svelte-7BK5ed99.js";import"./watch_pb-DJ3J4m7i.js";const d={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{d as editableContainer};
