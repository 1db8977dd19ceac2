<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Badge-ClOYVBbe.js
import{s as r,d as n,t as o,a as d,c as l,j as m}from"./index-vxNZgu4G.js";import{b as p,c}from"./words-nMjFPcV-.js";var f=l('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(n(s),1,!0);o(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),d(t,s)}export{v as B};
========
import{s as r,d as n,t as o,a as d,c as l,j as m}from"./index-D0k_309S.js";import{b as p,c}from"./words-D44HLAXm.js";var f=l('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(n(s),1,!0);o(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),d(t,s)}export{v as B};
>>>>>>>> 9225b2f7 (console: check every page by axe, by hostile text and on 390 pixels):server/pilothouse_server/gateway/static/assets/Badge-BMWnpF7D.js
