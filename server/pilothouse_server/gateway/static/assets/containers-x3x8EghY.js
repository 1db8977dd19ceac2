import{d as r}from"./container_pb-CTazPsWE.js";import{c as t}from"./containers-BuohCiEK.js";import"./index-CkPoOB6a.js";import"./resource_pb-DPrkl-dg.js";const c={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{c as editableContainer};
