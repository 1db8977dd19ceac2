<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Badge-CaIOLJ-Z.js
import{c as r,o,j as n,a as l,e as d,l as m}from"./index-DJ6KK-Qo.js";import{b as p,c}from"./words-Dq3Tt6lC.js";var f=d('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(o(s),1,!0);n(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),l(t,s)}export{v as B};
========
import{c as r,o,j as n,a as l,e as d,l as m}from"./index-DKpCAZPJ.js";import{b as p,c}from"./words-B906cfuh.js";var f=d('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(o(s),1,!0);n(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),l(t,s)}export{v as B};
>>>>>>>> e9981e72 (console: give every row of a table a key of its own):server/pilothouse_server/gateway/static/assets/Badge-irWJ3jL6.js
