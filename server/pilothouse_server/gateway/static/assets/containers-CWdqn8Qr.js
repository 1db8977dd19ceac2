import{f as r}from"./sources-C9TTrGmR.js";import{c as t}from"./containers-BMnKri_L.js";import"./index-vQPD6Vf6.js";import"./resource_pb-C_Prj0aD.js";import"./namespace_pb-CbxItyLv.js";import"./live.svelte-Cp4S6Z60.js";import"./watch_pb-C1utes2-.js";const d={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{d as editableContainer};
