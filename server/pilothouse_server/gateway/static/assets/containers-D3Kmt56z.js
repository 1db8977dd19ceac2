import{f as r}from"./sources-Bj37xO-U.js";import{c as t}from"./containers-0t8-Q63-.js";import"./index-CVkVUnLG.js";import"./resource_pb-rmgnS4sy.js";import"./namespace_pb-6U13yBpr.js";import"./watch_pb-VROA9ERm.js";const u={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{u as editableContainer};
