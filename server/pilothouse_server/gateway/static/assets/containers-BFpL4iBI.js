<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/containers-BFpL4iBI.js
import{c as r}from"./container_pb-DzQOdmPz.js";import{c as t}from"./containers-Dzp4GZAE.js";import"./index-DJ6KK-Qo.js";import"./resource_pb-EqKWxeZG.js";const s={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
========
import{d as r}from"./container_pb-DVKppaow.js";import{c as t}from"./containers-Chq7EzfH.js";import"./index-DKpCAZPJ.js";import"./resource_pb-D5C2iDfL.js";const c={noun:"container",schema:r,createPermission:"container.create",updatePermission:"container.update",hasNamespace:!0,entries:[{label:"Image",path:["image"],kind:"text",example:"nginx:1.27"},{label:"Replicas",path:["replicas"],kind:"number",example:"1"}],start:`image: nginx:1.27
>>>>>>>> e9981e72 (console: give every row of a table a key of its own):server/pilothouse_server/gateway/static/assets/containers-BzcJfhvQ.js
replicas: 1
# env:
# - {name: LEVEL, value: info}
# ports:
# - {container_port: 80}
`,create:(e,a,n)=>t.createContainer({namespace:e,container:a,...n}),update:(e,a,n,i)=>t.updateContainer({namespace:e.namespace,name:e.name,container:a,updateMask:{paths:n},etag:e.etag,includeChanges:!0,...i})};export{c as editableContainer};
