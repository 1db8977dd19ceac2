<<<<<<<< HEAD:server/pilothouse_server/gateway/static/assets/Moment-Bh8dXg5O.js
import{p as r,j as n,m as p,l as f,a as i,b as l,e as u,q as _}from"./index-DJ6KK-Qo.js";import{a as c,s as h}from"./words-Dq3Tt6lC.js";var x=u("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=_(a,!0);n((m,o)=>{p(a,"title",m),f(s,o)},[()=>c(t.moment),()=>h(t.moment)]),i(e,a),l()}export{d as M};
========
import{p as r,j as n,m as p,l as f,a as i,b as l,e as u,q as _}from"./index-DKpCAZPJ.js";import{a as c,s as h}from"./words-B906cfuh.js";var x=u("<span> </span>");function d(e,t){r(t,!0);var a=x(),s=_(a,!0);n((m,o)=>{p(a,"title",m),f(s,o)},[()=>c(t.moment),()=>h(t.moment)]),i(e,a),l()}export{d as M};
>>>>>>>> e9981e72 (console: give every row of a table a key of its own):server/pilothouse_server/gateway/static/assets/Moment-BqdyQhUi.js
