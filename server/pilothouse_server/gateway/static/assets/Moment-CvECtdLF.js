<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Moment-BHHJVADj.js
import{p as r,t as n,h as p,j as f,a as i,b as c,c as h,o as l}from"./index-vxNZgu4G.js";import{a as u,s as _}from"./words-nMjFPcV-.js";var x=h("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=l(a,!0);n((o,m)=>{p(a,"title",o),f(s,m)},[()=>u(t.moment),()=>_(t.moment)]),i(e,a),c()}export{d as M};
========
import{p as r,t as n,h as p,j as f,a as i,b as c,c as h,o as l}from"./index-D0k_309S.js";import{a as u,s as _}from"./words-D44HLAXm.js";var x=h("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=l(a,!0);n((o,m)=>{p(a,"title",o),f(s,m)},[()=>u(t.moment),()=>_(t.moment)]),i(e,a),c()}export{d as M};
>>>>>>>> 9225b2f7 (console: check every page by axe, by hostile text and on 390 pixels):server/pilothouse_server/gateway/static/assets/Moment-CvECtdLF.js
