<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Badge-lb73SLP-.js
import{s as r,d as n,t as o,a as d,c as l,j as m}from"./index-Dh_8V8Vs.js";import{s as p,c}from"./words-B5uIjmH0.js";var f=l('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(n(s),1,!0);o(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),d(t,s)}export{v as B};
========
import{s as r,d as n,t as o,a as d,c as l,j as m}from"./index-B-HHcE1d.js";import{b as p,c}from"./words-CIvyNyUe.js";var f=l('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(n(s),1,!0);o(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),d(t,s)}export{v as B};
>>>>>>>> 4bf26625 (console: edit resources, show usage and events, and prove records):server/pilothouse_server/gateway/static/assets/Badge-1YW7RuLg.js
