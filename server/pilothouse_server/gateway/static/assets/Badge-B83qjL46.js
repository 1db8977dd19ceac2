<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Badge-B83qjL46.js
import{c as r,o,j as n,a as l,e as d,l as m}from"./index-BlizQIps.js";import{b as p,c}from"./words-BWLwevl9.js";var f=d('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(o(s),1,!0);n(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),l(t,s)}export{v as B};
========
import{c as r,o,j as n,a as l,e as d,l as m}from"./index-CmR-qrXV.js";import{b as p,c}from"./words-B26h6Hps.js";var f=d('<span><span aria-hidden="true" class="dot svelte-1fshm9d"></span> </span>');function v(t,a){var s=f(),e=r(o(s),1,!0);n(()=>{p(s,1,c(a.tone),"svelte-1fshm9d"),m(e,a.words)}),l(t,s)}export{v as B};
>>>>>>>> eb162bba (console: have the shared watch keep resources as bytes):server/pilothouse_server/gateway/static/assets/Badge-CixtSam8.js
