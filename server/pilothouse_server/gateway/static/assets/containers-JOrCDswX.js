import{f as r}from"./sources-BjrgYj_n.js";import{c as t}from"./containers-BZuN3zlF.js";import"./index-l_Plumab.js";import"./resource_pb-hRGf8cpq.js";import"./namespace_pb-CsTUbZUq.js";import"./live.svelte-D2SUxA49.js";import"./watch_pb-C9-TBxAz.js";const d={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{d as editableContainer};
